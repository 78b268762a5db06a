"""deploy/: what `kubectl apply -k` installs is what the chart installs."""

from __future__ import annotations

import subprocess
import sys

import yaml

from tests.chart.helm import CHART, NAMESPACE, RELEASE, ROOT, Json, of_kind, one, render


def kustomized() -> list[Json]:
    text = subprocess.run(
        ["kubectl", "kustomize", ROOT / "deploy"], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    return [manifest for manifest in yaml.load_all(text, yaml.CSafeLoader) if manifest]


def test_the_rendered_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "charts" / "render.py", "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout


def test_it_equals_the_cluster_wide_chart_without_helms_labels() -> None:
    chart = {(m["kind"], m["metadata"]["name"]): m for m in render({"clusterWide": True}, "--skip-tests")}
    plain = {(m["kind"], m["metadata"]["name"]): m for m in kustomized()}

    assert plain.keys() - chart.keys() == {("Namespace", NAMESPACE)}
    assert chart.keys() <= plain.keys()
    for identity, manifest in chart.items():
        for part in manifest.keys() - {"metadata", "spec"}:
            assert plain[identity][part] == manifest[part], identity
        assert plain[identity]["metadata"].get("namespace") == manifest["metadata"].get("namespace")
    (operator,) = (plain[("Deployment", RELEASE)]["spec"]["template"]["spec"]["containers"],)
    assert operator == chart[("Deployment", RELEASE)]["spec"]["template"]["spec"]["containers"]
    assert "elm" not in yaml.safe_dump([m for m in plain.values() if m["kind"] != "CustomResourceDefinition"])


def test_it_runs_as_a_service_account_in_a_restricted_namespace() -> None:
    manifests = kustomized()
    (account,) = of_kind(manifests, "ServiceAccount")

    labels = one(manifests, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for binding in of_kind(manifests, "RoleBinding", "ClusterRoleBinding"):
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": NAMESPACE}
        ]


def test_the_documented_paths_of_chart_and_readme_exist() -> None:
    assert (CHART / "README.md").exists()
    assert f"helm install diffugen-operator {CHART.relative_to(ROOT)}" in (CHART / "README.md").read_text()
