"""The policy `restricted` for run.podTemplate: what it allows, and what it refuses with the field and the fix."""

from __future__ import annotations

from typing import Any

import pytest

from diffugen_operator.manifests.pod_policy import fault_of
from diffugen_operator.observed.dataset import InvalidSpec, Wanted, read_spec
from tests.operator.lives import a_raw_dataset

PLACED = {
    "metadata": {"labels": {"team": "vision"}, "annotations": {"sidecar.istio.io/inject": "false"}},
    "spec": {
        "nodeSelector": {"pool": "gpus"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1}],
        "priorityClassName": "low",
        "schedulerName": "volcano",
        "runtimeClassName": "nvidia",
        "hostUsers": False,
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one"}],
        "imagePullSecrets": [{"name": "registry"}],
        "securityContext": {"runAsUser": 1000, "fsGroup": 1000, "supplementalGroups": [2000]},
        "volumes": [
            {"name": "scratch", "emptyDir": {"medium": "Memory"}},
            {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
            {"name": "packed", "image": {"reference": "registry.example.com/models:1"}},
        ],
        "containers": [
            {
                "name": "generator",
                "imagePullPolicy": "Always",
                "resources": {"claims": [{"name": "gpu"}]},
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                "env": [
                    {"name": "HF_HUB_OFFLINE", "value": "1"},
                    {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}},
                ],
            }
        ],
    },
}


def test_what_places_and_sizes_pods_is_allowed() -> None:
    assert fault_of(PLACED) is None
    assert fault_of({}) is None


def a_container(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "generator", **fields}]}}


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ({"spec": {"hostNetwork": True}}, "spec.run.podTemplate.spec.hostNetwork"),
        ({"spec": {"hostPID": True}}, "spec.run.podTemplate.spec.hostPID"),
        ({"spec": {"hostUsers": True}}, "spec.run.podTemplate.spec.hostUsers"),
        ({"spec": {"serviceAccountName": "admin"}}, "spec.run.podTemplate.spec.serviceAccountName"),
        ({"spec": {"automountServiceAccountToken": True}}, "spec.run.podTemplate.spec.automountServiceAccountToken"),
        ({"spec": {"securityContext": None}}, "spec.run.podTemplate.spec.securityContext"),
        ({"spec": {"securityContext": {"runAsUser": 0}}}, "spec.run.podTemplate.spec.securityContext.runAsUser"),
        (
            {"spec": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}},
            "spec.run.podTemplate.spec.securityContext.seccompProfile",
        ),
        ({"spec": {"initContainers": [{"name": "x"}]}}, "spec.run.podTemplate.spec.initContainers"),
        ({"spec": {"containers": [{"name": "other"}]}}, "spec.run.podTemplate.spec.containers[0].name"),
        ({"spec": {"containers": "x"}}, "spec.run.podTemplate.spec.containers"),
        (
            {"spec": {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}},
            "spec.run.podTemplate.spec.volumes[0].hostPath",
        ),
        (
            {"spec": {"volumes": [{"name": "keys", "secret": {"secretName": "keys"}}]}},
            "spec.run.podTemplate.spec.volumes[0].secret",
        ),
        (
            a_container(securityContext={"privileged": True}),
            "spec.run.podTemplate.spec.containers[0].securityContext",
        ),
        (a_container(envFrom=[{"secretRef": {"name": "k"}}]), "spec.run.podTemplate.spec.containers[0].envFrom"),
        (a_container(command=["sh"]), "spec.run.podTemplate.spec.containers[0].command"),
        (
            a_container(env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "k", "key": "HF_TOKEN"}}}]),
            "spec.run.podTemplate.spec.containers[0].env[0]",
        ),
        (
            a_container(env=[{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "k", "key": "password"}}}]),
            "spec.run.podTemplate.spec.containers[0].env[0]",
        ),
        (
            a_container(env=[{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "k", "key": "x"}}}]),
            "spec.run.podTemplate.spec.containers[0].env[0].valueFrom",
        ),
        (
            a_container(env=[{"name": "DIFFUGEN_ORDER", "value": "/tmp/mine"}]),
            "spec.run.podTemplate.spec.containers[0].env[0].name",
        ),
        (a_container(env=[{"name": ["HOME"], "value": "x"}]), "spec.run.podTemplate.spec.containers[0].env[0].name"),
        (a_container(env=[{"name": {"a": 1}}]), "spec.run.podTemplate.spec.containers[0].env[0].name"),
        (a_container(env=[{"name": 1, "value": "x"}]), "spec.run.podTemplate.spec.containers[0].env[0].name"),
        (a_container(env=["HOME"]), "spec.run.podTemplate.spec.containers[0].env[0]"),
        (
            a_container(env=[{"name": ["X"], "valueFrom": {"secretKeyRef": {"key": ["X"]}}}]),
            "spec.run.podTemplate.spec.containers[0].env[0]",
        ),
        ({"spec": {"containers": [{"name": ["generator"]}]}}, "spec.run.podTemplate.spec.containers[0].name"),
        (
            {"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/generator": "unconfined"}}},
            "spec.run.podTemplate.metadata.annotations",
        ),
        ({"metadata": {"finalizers": ["x"]}}, "spec.run.podTemplate.metadata.finalizers"),
        ({"kind": "Pod"}, "spec.run.podTemplate.kind"),
    ],
    ids=str,
)
def test_what_undoes_a_promise_about_pods_is_refused_with_its_field(template: dict[str, Any], field: str) -> None:
    fault = fault_of(template)

    assert fault is not None
    assert fault.startswith(f"{field} ")
    assert "--pod-template-policy is restricted: remove it" in fault


def test_a_template_that_the_policy_refuses_stalls_the_dataset() -> None:
    raw = a_raw_dataset(run={"podTemplate": {"spec": {"hostNetwork": True}}})

    assert isinstance(read_spec(raw), Wanted)
    refused = read_spec(raw, restricted=True)
    assert isinstance(refused, InvalidSpec)
    assert refused.reason == "InvalidPodTemplate"
