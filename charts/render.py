"""Render what is generated of the chart: its schema of the operator's settings, and deploy/.

`python charts/render.py` writes them; `--check` exits 1 where a file in the tree differs from what would be written.
`deploy/` is what `helm template` makes of the chart with the values below, without Helm's own labels, for those who
install with `kubectl apply -k`.
"""

from __future__ import annotations

import argparse
import difflib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from devcluster.binaries import Tool, ensure_tool
from devcluster.building import ConsoleReporter
from diffugen_operator.settings import Settings

ROOT = Path(__file__).parent.parent
CHART = ROOT / "charts" / "diffugen-operator"
DEPLOY = ROOT / "deploy"
NAMESPACE = "diffugen-system"

VALUES = {"fullnameOverride": "diffugen-operator", "clusterWide": True, "crds": {"enabled": False}}
"""The values of deploy/: all namespaces, two replicas; the CRD comes from crds/."""

SET_BY_THE_CHART = {
    "ca_config_map", "context", "generator_image", "http_host", "http_port", "kubeconfig", "lease_name",
    "lease_namespace", "light_image", "namespaces", "store_addressing_style", "store_bucket", "store_endpoint",
    "store_prefix", "store_region", "store_secret",
}  # fmt: skip
"""Settings that have a value of their own, or none in a pod."""

_HEAD = "# Rendered from charts/diffugen-operator by `make generate`; do not edit.\n"

Manifest = dict[str, Any]


def settings_schema() -> dict[str, Any]:
    """Return the schema of each setting that `settings` may hold, with the operator's own bounds."""
    return {
        _camel(name): {key: value for key, value in schema.items() if key not in {"default", "title"}}
        | {"description": " ".join(schema["description"].split())}
        for name, schema in Settings.model_json_schema()["properties"].items()
        if name not in SET_BY_THE_CHART
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def values_schema() -> str:
    """Return values.schema.json with the settings as the operator has them now."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    schema["properties"]["settings"]["properties"] = settings_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def manifests(helm: Path) -> list[Manifest]:
    """Return what the chart makes of VALUES, without Helm's labels and its tests."""
    values = json.dumps(VALUES)
    command = [helm, "template", "diffugen-operator", CHART, "--namespace", NAMESPACE, "--skip-tests", "--values", "-"]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True, input=values).stdout
    found = [manifest for manifest in yaml.safe_load_all(rendered) if manifest]
    for manifest in found:
        _without_helm(manifest)
    return found


def _without_helm(manifest: Manifest) -> None:
    labels = [manifest["metadata"]]
    if "template" in manifest.get("spec", {}):
        labels.append(manifest["spec"]["template"]["metadata"])
    for metadata in labels:
        for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
            metadata.get("labels", {}).pop(label, None)


def deploy(helm: Path) -> dict[Path, str]:
    """Return the files of deploy/."""
    found = manifests(helm)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": ["../crds", "namespace.yaml", "rbac.yaml", "operator.yaml"],
    }
    restricted = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": restricted}}
    rights = [m for m in found if m["kind"] == "ServiceAccount" or "Role" in m["kind"]]
    rest = [m for m in found if m not in rights]
    files = {"kustomization": [kustomization], "namespace": [namespace], "rbac": rights, "operator": rest}
    return {DEPLOY / f"{name}.yaml": _dumped(contents) for name, contents in files.items()}


def _dumped(contents: list[Manifest]) -> str:
    return _HEAD + yaml.safe_dump_all(contents, sort_keys=False, width=120, allow_unicode=True)


def write_or_check(files: dict[Path, str], *, check: bool) -> int:
    """Write the files, or show where they differ; returns how many did."""
    stale = 0
    for file, text in files.items():
        found = file.read_text() if file.exists() else ""
        if found == text:
            continue
        stale += 1
        if check:
            name = str(file.relative_to(ROOT))
            sys.stdout.writelines(
                difflib.unified_diff(found.splitlines(True), text.splitlines(True), name, f"{name} (rendered)")
            )
            sys.stdout.write(f"{name} is out of date: run `make generate`\n")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return stale


def main() -> int:
    """Write the generated files, or with --check compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and show the difference")
    check = parser.parse_args().check
    # deploy/ is rendered from the chart, so the chart's own file comes first.
    stale = write_or_check({CHART / "values.schema.json": values_schema()}, check=check)
    stale += write_or_check(deploy(ensure_tool(Tool.HELM, ConsoleReporter()) / "helm"), check=check)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
