"""The chart as Helm renders it, and the variants in which it is tested.

manifests = render({"clusterWide": True})
assert one(manifests, "ClusterRole", "diffugen-operator")["rules"]
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from devcluster.binaries import Tool, ensure_tool
from devcluster.building import ConsoleReporter

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "diffugen-operator"
RELEASE = "diffugen-operator"
NAMESPACE = "diffugen-system"

Json = dict[str, Any]

_DIGEST = f"sha256:{'ab' * 32}"
_LABELED = {"team": "vision"}

VARIANTS: dict[str, Json] = {
    "as it comes": {},
    "one namespace of another name": {"namespaces": ["vision"]},
    "several namespaces": {"namespaces": ["vision", "audio"], "networkPolicy": {"enabled": True}},
    "cluster-wide": {"clusterWide": True},
    "cluster-wide with policies": {
        "clusterWide": True,
        "networkPolicy": {"enabled": True, "generator": {"namespaces": ["vision"]}},
        "metrics": {"podMonitor": {"enabled": True}},
    },
    "without rights over the cluster": {"crds": {"enabled": False}, "rbac": {"aggregateRoles": False}},
    "rights given by others": {"rbac": {"create": False}, "serviceAccount": {"create": False, "name": "given"}},
    "a CRD that goes with the chart": {"crds": {"keep": False}},
    "Kueue": {"rbac": {"kueue": True}},
    "Kueue, cluster-wide": {"rbac": {"kueue": True}, "clusterWide": True},
    "one replica": {"replicas": 1},
    "a default store": {
        "store": {"endpoint": "https://s3.example", "bucket": "data", "prefix": "team", "secretName": "keys"}
    },
    "a default store by workload identity": {
        "store": {"endpoint": "https://s3.example", "bucket": "data", "region": "eu-west-1", "addressingStyle": "path"}
    },
    "MinIO for trials": {"minio": {"enabled": True, "accessKey": "access", "secretKey": "secret-of-it"}},
    "MinIO with a volume": {
        "minio": {
            "enabled": True,
            "accessKey": "access",
            "secretKey": "secret-of-it",
            "persistence": {"enabled": True, "storageClassName": "fast"},
        },
        "namespaces": ["vision", "audio"],
        "networkPolicy": {"enabled": True},
    },
    "certificates of its own": {"caBundle": {"configMap": "team-ca"}},
    "images by digest from a mirror": {
        "image": {"registry": "mirror.example", "digest": _DIGEST, "pullPolicy": "Always"},
        "generator": {"image": {"digest": _DIGEST}, "lightImage": {"digest": _DIGEST}},
        "imagePullSecrets": [{"name": "pull"}],
    },
    "everything for Prometheus and Grafana": {
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": _LABELED},
            "podMonitor": {"enabled": True, "labels": _LABELED},
            "prometheusRule": {"enabled": True, "labels": _LABELED},
            "dashboard": {"enabled": True, "annotations": {"folder": "vision"}},
        }
    },
    "tight network policies": {
        "networkPolicy": {
            "enabled": True,
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "generator": {
                "storeTo": [{"ipBlock": {"cidr": "10.1.2.3/32"}}],
                "modelHub": False,
                "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}],
            },
        }
    },
    "an admission policy": {
        "admissionPolicy": {
            "enabled": True,
            "allowedSecrets": ["huggingface"],
            "actions": ["Warn", "Audit"],
            "namespaceSelector": {"matchLabels": _LABELED},
        }
    },
    "pods placed and labeled": {
        "podAnnotations": {"a": "b"},
        "podLabels": _LABELED,
        "podSecurityContext": {"runAsUser": 1234},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "infra", "operator": "Exists"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}]
                }
            }
        },
        "priorityClassName": "system-cluster-critical",
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
        ],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "settings": {"jobTtl": 1_000_000, "noProgressAfter": 0, "workers": 4, "logLevel": "DEBUG"},
        "serviceAccount": {"name": "ours", "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}},
        "podDisruptionBudget": {"maxUnavailable": "50%"},
        "fullnameOverride": "drawers",
    },
}
"""Values by their purpose; together they render every branch of every template."""


class HelmError(Exception):
    """Helm refused; the message is Helm's."""


def helm(*arguments: str | Path, values: Mapping[str, Any] | None = None, kubeconfig: Path | None = None) -> str:
    """Run Helm and return its output; it reads `values` from a file."""
    command = [str(_helm()), *map(str, arguments)]
    if values is not None:
        command += ["--values", "-"]
    if kubeconfig is not None:
        command += ["--kubeconfig", str(kubeconfig)]
    done = subprocess.run(
        command, input=json.dumps(values or {}), capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


@cache
def _helm() -> Path:
    return ensure_tool(Tool.HELM, ConsoleReporter()) / "helm"


def render(values: Mapping[str, Any] | None = None, *flags: str) -> list[Json]:
    """Return the manifests that the chart renders from these values, its tests included."""
    text = _rendered(json.dumps(values or {}), *flags)
    return [manifest for manifest in yaml.load_all(text, yaml.CSafeLoader) if manifest]


@cache
def _rendered(values: str, *flags: str) -> str:
    return helm("template", RELEASE, CHART, "--namespace", NAMESPACE, *flags, values=json.loads(values))


def of_kind(manifests: Iterable[Json], *kinds: str) -> list[Json]:
    """Return the manifests of these kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def one(manifests: Iterable[Json], kind: str, name: str = "") -> Json:
    """Return the only manifest of a kind, or of a kind and name."""
    found = [m for m in of_kind(manifests, kind) if name in ("", m["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} manifests are a {kind} {name}"
    return found[0]


def merged(base: Json, changes: Mapping[str, Any]) -> Json:
    """Return `base` with `changes` merged in, maps deeply, as Helm merges files of values."""
    result = dict(base)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return result
