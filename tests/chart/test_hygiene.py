"""Every pod in every variant meets the rules of kube-linter and of the Pod Security Standards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chart.helm import VARIANTS, Json, of_kind, render

RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
LONG_RUNNING = ("Deployment",)


def pods(manifests: list[Json]) -> Iterator[tuple[str, Json]]:
    """Yield the name and the spec of every pod, of `helm test` too."""
    for manifest in manifests:
        if manifest["kind"] == "Pod":
            yield manifest["metadata"]["name"], manifest["spec"]
        elif "template" in manifest.get("spec", {}):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


def containers(manifests: list[Json]) -> Iterator[tuple[str, Json]]:
    for name, pod in pods(manifests):
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            yield f"{name}/{container['name']}", container


@pytest.fixture(params=VARIANTS)
def manifests(request: pytest.FixtureRequest) -> list[Json]:
    return render(VARIANTS[request.param])


def test_pods_meet_the_restricted_standard(manifests: list[Json]) -> None:
    for name, pod in pods(manifests):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context.get("runAsUser") != 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        kinds = {key for volume in pod.get("volumes", []) for key in volume} - {"name"}
        assert kinds <= RESTRICTED_VOLUMES, name
    for name, container in containers(manifests):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name


def test_images_are_pinned(manifests: list[Json]) -> None:
    for name, container in containers(manifests):
        path, _, tag = container["image"].partition("@")
        tag = tag or path.rpartition(":")[2]
        assert tag not in ("", "latest"), name
        assert ":" in container["image"].rpartition("/")[2], name


def test_resources_are_requested_and_memory_is_limited(manifests: list[Json]) -> None:
    for name, container in containers(manifests):
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys(), name
        assert "memory" in resources["limits"], name
        assert "cpu" not in resources["limits"], f"{name}: a CPU limit throttles a leader that must renew its Lease"


def test_long_running_containers_have_probes(manifests: list[Json]) -> None:
    for deployment in of_kind(manifests, *LONG_RUNNING):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            ports = {port["name"] for port in container["ports"]}
            for probe in ("livenessProbe", "readinessProbe"):
                assert container[probe]["httpGet"]["port"] in ports
                assert container[probe]["timeoutSeconds"] >= 5
            assert container["livenessProbe"] != container["readinessProbe"]


def test_only_the_operator_has_a_token(manifests: list[Json]) -> None:
    with_token = [name for name, pod in pods(manifests) if pod["automountServiceAccountToken"]]

    assert len(with_token) == 1
    assert not with_token[0].endswith(("-minio", "-test"))
    for account in of_kind(manifests, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_keys_are_references_to_secrets_and_service_links_are_off(manifests: list[Json]) -> None:
    for name, pod in pods(manifests):
        assert pod["enableServiceLinks"] is False, name
    for name, container in containers(manifests):
        plain = [entry["name"] for entry in container.get("env", []) if "value" in entry]
        assert not [key for key in plain if any(word in key.upper() for word in ("SECRET", "PASSWORD", "TOKEN"))], name


def test_two_replicas_are_spread_and_a_rollout_or_drain_keeps_one(manifests: list[Json]) -> None:
    for deployment in of_kind(manifests, "Deployment"):
        spec = deployment["spec"]
        if spec["replicas"] < 2:
            continue
        assert spec["template"]["spec"]["topologySpreadConstraints"]
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert len(of_kind(manifests, "PodDisruptionBudget")) == 1
