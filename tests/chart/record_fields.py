"""Record which fields the kinds of a Kubernetes release have, for tests/chart/test_fields.py.

go mod download k8s.io/client-go@v0.32.0
python -m tests.chart.record_fields $(go env GOMODCACHE)/k8s.io/client-go@v0.32.0

client-go holds them in applyconfigurations/internal/internal.go, as the schema of server-side apply. Only types that
the kinds below reach are kept.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

FIELDS = Path(__file__).with_name("fields-of-1.32.json")
KINDS = [
    "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    "io.k8s.api.apps.v1.Deployment",
    "io.k8s.api.batch.v1.Job",
    "io.k8s.api.core.v1.ConfigMap",
    "io.k8s.api.core.v1.PersistentVolumeClaim",
    "io.k8s.api.core.v1.Pod",
    "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.Service",
    "io.k8s.api.core.v1.ServiceAccount",
    "io.k8s.api.networking.v1.NetworkPolicy",
    "io.k8s.api.policy.v1.PodDisruptionBudget",
    "io.k8s.api.rbac.v1.ClusterRole",
    "io.k8s.api.rbac.v1.ClusterRoleBinding",
    "io.k8s.api.rbac.v1.Role",
    "io.k8s.api.rbac.v1.RoleBinding",
]

Types = dict[str, dict[str, str]]
"""Each type's fields, and the type of each; empty where its value is a scalar or free."""


def record(client_go: Path) -> Types:
    """Return the types that KINDS reach."""
    text = (client_go / "applyconfigurations" / "internal" / "internal.go").read_text()
    match = re.search(r"YAMLObject\(`(.*?)`\)", text, re.DOTALL)
    assert match is not None
    known = {entry["name"]: entry for entry in yaml.load(match[1], yaml.CSafeLoader)["types"]}
    found: Types = {}
    waiting = list(KINDS)
    while waiting:
        name = waiting.pop()
        if name in found or "map" not in known[name] or "fields" not in known[name]["map"]:
            continue
        found[name] = {field["name"]: _named(field["type"]) for field in known[name]["map"]["fields"]}
        waiting += [inner for inner in found[name].values() if inner]
    return dict(sorted(found.items()))


def _named(kind: dict[str, Any]) -> str:
    if "list" in kind:
        return _named(kind["list"]["elementType"])
    return str(kind.get("namedType", ""))


if __name__ == "__main__":
    FIELDS.write_text(json.dumps(record(Path(sys.argv[1])), indent=0) + "\n")
