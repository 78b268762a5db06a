"""The chart's admission policy, on a real API server: which podTemplates it refuses, and which it allows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.cluster import ClusterError
from tests.chart.helm import Json, of_kind, render
from tests.cluster.pods import eventually
from tests.cluster.world import World, a_manifest

VALUES = {"admissionPolicy": {"enabled": True, "allowedSecrets": ["huggingface"]}, "crds": {"enabled": False}}
HUB_TOKEN = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "huggingface", "key": "token"}}}


def container(**fields: Any) -> Json:
    return {"spec": {"containers": [{"name": "generator", **fields}]}}


REFUSED: dict[str, tuple[Json, str]] = {
    "the host's network": ({"spec": {"hostNetwork": True}}, "host's network"),
    "a folder of the node": (
        {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}},
        "no hostPath",
    ),
    "a privileged container": (container(securityContext={"privileged": True}), "no privileges"),
    "a privileged init container": (
        {"spec": {"initContainers": [{"name": "i", "securityContext": {"privileged": True}}]}},
        "no privileges",
    ),
    "root": ({"spec": {"securityContext": {"runAsUser": 0}}}, "no root"),
    "more capabilities": (container(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}), "no added capabilities"),
    "escalation": (container(securityContext={"allowPrivilegeEscalation": True}), "no privileges"),
    "no seccomp": ({"spec": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}}, "no unconfined seccomp"),
    "another service account": ({"spec": {"serviceAccountName": "admin"}}, "must not choose a service account"),
    "a token": ({"spec": {"automountServiceAccountToken": True}}, "must not choose a service account"),
    "a projected token": (
        {"spec": {"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}},
        "no service account's token",
    ),
    "all of a Secret": (container(envFrom=[{"secretRef": {"name": "others"}}]), "admissionPolicy.allowedSecrets"),
    "a key of a Secret": (
        container(env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "others", "key": "k"}}}]),
        "admissionPolicy.allowedSecrets",
    ),
    "a Secret as a volume": (
        {"spec": {"volumes": [{"name": "v", "secret": {"secretName": "others"}}]}},
        "admissionPolicy.allowedSecrets",
    ),
}

ALLOWED: dict[str, Json] = {
    "nothing": {},
    "placement": {"spec": {"nodeSelector": {"gpu": "a100"}, "tolerations": [{"operator": "Exists"}]}},
    "labels": {"metadata": {"labels": {"team": "vision"}}},
    "a token for the model hub": container(env=[HUB_TOKEN, {"name": "A", "value": "b"}]),
    "volumes of the pod's own": {
        "spec": {
            "volumes": [{"name": "m", "emptyDir": {"medium": "Memory"}}, {"name": "c", "configMap": {"name": "c"}}]
        }
    },
    "a user": {"spec": {"securityContext": {"runAsUser": 1234, "fsGroup": 1234}}},
    "a sidecar": {"spec": {"initContainers": [{"name": "s", "image": "x", "restartPolicy": "Always"}]}},
}


def refusal(world: World, template: Json, *flags: str) -> str:
    """Return why the API server refuses a dataset with this template; empty if it would accept it."""
    manifest = a_manifest(world.namespace, "http://minio:9000", "data", run={"podTemplate": template})
    try:
        world.cluster.kubectl("apply", "--dry-run=server", *flags, "-f", "-", stdin=json.dumps(manifest))
    except ClusterError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def guarded(new_world: Any) -> Iterator[World]:
    """A namespace in which the policy applies; the only one, as it must not affect other tests' datasets."""
    world: World = new_world("guarded")
    policies = of_kind(render(VALUES), "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    only_here = {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}}
    for policy in policies:
        if policy["kind"].endswith("Binding"):
            policy["spec"]["matchResources"] = {"namespaceSelector": only_here}
    world.cluster.apply(*policies)
    eventually(lambda: "host's network" in refusal(world, {"spec": {"hostNetwork": True}}))
    yield world
    for policy in policies:
        world.cluster.kubectl("delete", policy["kind"], policy["metadata"]["name"])
    world.cluster.kubectl("delete", "namespace", world.namespace, "--wait=false")


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_sentence(guarded: World, case: str) -> None:
    template, words = REFUSED[case]

    said = refusal(guarded, template)
    assert "spec.run.podTemplate must" in said
    assert words in said


@pytest.mark.parametrize("case", ALLOWED)
def test_allowed(guarded: World, case: str) -> None:
    assert refusal(guarded, ALLOWED[case]) == ""


def test_a_dataset_from_before_the_policy_can_still_lose_its_finalizer(guarded: World) -> None:
    cluster, namespace = guarded.cluster, guarded.namespace
    binding = next(p for p in of_kind(render(VALUES), "ValidatingAdmissionPolicyBinding"))["metadata"]["name"]
    elsewhere = '{"spec":{"matchResources":{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"%s"}}}}}'
    cluster.kubectl("patch", "validatingadmissionpolicybinding", binding, "--type=merge", "-p", elsewhere % "nowhere")
    old = a_manifest(namespace, "http://minio:9000", "data", run={"podTemplate": {"spec": {"hostNetwork": True}}})
    old["metadata"] |= {"name": "old", "finalizers": ["diffugen.dev/clean-up"]}
    eventually(lambda: refusal(guarded, {"spec": {"hostNetwork": True}}) == "")
    cluster.apply(old)
    cluster.kubectl("patch", "validatingadmissionpolicybinding", binding, "--type=merge", "-p", elsewhere % namespace)
    eventually(lambda: refusal(guarded, {"spec": {"hostNetwork": True}}) != "")

    cluster.kubectl("label", "lds/old", "-n", namespace, "still=possible")
    cluster.kubectl("delete", "lds/old", "-n", namespace, "--wait=false")
    cluster.kubectl("patch", "lds/old", "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":[]}}')
    eventually(lambda: not cluster.items("lds", namespace=namespace))
