"""The operator with exactly the rights that it ships with, in a whole life: none is missing, and none is unused."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from devcluster.kubeapi import UNREACHABLE, ApiError, KubeApi
from diffugen_api.contract import RETRY_ANNOTATION, Step
from diffugen_api.plan import revision_of, store_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_operator.manifests import names
from tests.cluster.operator_process import OperatorProcess
from tests.cluster.pods import eventually
from tests.cluster.test_deletion import delete, wait_gone
from tests.cluster.world import RBAC, ROOT, Json, World

ACCOUNT = "diffugen-operator"
DECISION = "authorization.k8s.io/decision"
"""Annotation of an audit event: allow or forbid."""
NAMESPACED = ROOT / "operator" / "rbac-namespaced.yaml"
SMALL = {"prompts": {"samplesPerPrompt": 1}, "deletionPolicy": "Delete"}

UNSEEN = {("diffugen.dev", "labeleddatasets/finalizers", "update")}
"""Checked by admission, never by a request."""

Right = tuple[str, str, str]
"""API group, resource with its subresource, verb."""


def bound(path: Path, world: World) -> list[Json]:
    """Return the manifests as an installation has them: in this namespace, for its service account."""
    manifests = [manifest for manifest in yaml.safe_load_all(path.read_text()) if manifest["kind"] != "Namespace"]
    for manifest in manifests:
        if manifest["kind"] in ("Role", "RoleBinding"):
            manifest["metadata"]["namespace"] = world.namespace
        else:
            manifest["metadata"]["name"] = f"{world.namespace}-operator"
        if "roleRef" in manifest:
            if manifest["kind"] == "ClusterRoleBinding":
                manifest["roleRef"]["name"] = f"{world.namespace}-operator"
            manifest["subjects"] = [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": world.namespace}]
    return manifests


def rights(manifests: list[Json]) -> set[Right]:
    return {
        (group, resource, verb)
        for manifest in manifests
        for rule in manifest.get("rules", [])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def kubeconfig_of(world: World, path: Path) -> Path:
    """Write a kubeconfig for the service account."""
    account = {"metadata": {"name": ACCOUNT, "namespace": world.namespace}}
    world.cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", **account})
    config = copy.deepcopy(yaml.safe_load(world.cluster.kubeconfig.read_text()))
    token = world.kubectl("create", "token", ACCOUNT, "-n", world.namespace, "--duration=1h").strip()
    config["users"][0]["user"] = {"token": token}
    path.write_text(yaml.safe_dump(config))
    return path


class Asked:
    """What the service account asked of the API server."""

    def __init__(self, world: World) -> None:
        self._cluster = world.cluster
        self._user = f"system:serviceaccount:{world.namespace}:{ACCOUNT}"

    def events(self) -> list[Json]:
        return self._cluster.audit_events(self._user)

    def used(self) -> set[Right]:
        return {_right(event) for event in self.events()}

    def refused(self) -> list[str]:
        """Return the requests without a right. A namespace under deletion also answers 403, though the right exists."""
        forbidden = [event for event in self.events() if event.get("annotations", {}).get(DECISION) == "forbid"]
        return [f"{event['verb']} {event['requestURI']}" for event in forbidden]


def _right(event: Json) -> Right:
    reference = event["objectRef"]
    resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
    return reference.get("apiGroup", ""), resource, event["verb"]


@pytest.fixture(params=["namespaced", "cluster-wide"])
def installed(
    request: pytest.FixtureRequest, world: World, tmp_path: Path, cluster: Cluster
) -> Iterator[tuple[World, set[Right]]]:
    """An operator that leads by a Lease and has exactly the rights of its mode."""
    wide = request.param == "cluster-wide"
    kubeconfig = kubeconfig_of(world, tmp_path / "kubeconfig")
    manifests = bound(RBAC if wide else NAMESPACED, world)
    cluster.apply(*manifests)
    world.operator = OperatorProcess(
        kubeconfig=kubeconfig,
        namespace="" if wide else world.namespace,
        log=tmp_path / "operator.log",
        environment={"DIFFUGEN_LEASE_NAMESPACE": world.namespace, "DIFFUGEN_LOG_FORMAT": "json"},
    )
    world.operator.start()
    yield world, rights(manifests)
    world.operator.end()
    world.kubectl("delete", "namespace", world.namespace, "--wait=false")
    for manifest in manifests:
        if manifest["kind"].startswith("Cluster"):
            world.kubectl("delete", manifest["kind"], manifest["metadata"]["name"])


def strangers(world: World, kind: str, name: str) -> Callable[[], str]:
    """Take a name before the operator does; returns a function that frees it."""
    manifest: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    if kind == "job":
        container = {"name": "c", "image": "x"}
        template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
        spec = {"suspend": True, "template": template}
        manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
    manifest["metadata"]["namespace"] = world.namespace
    world.cluster.apply(manifest)
    return lambda: world.kubectl("delete", kind, name, "-n", world.namespace)


def next_run(world: World, manifest: Json, attempts: int = 1) -> names.RunKey:
    """Return the run that is so many attempts ahead."""
    spec = LabeledDatasetSpec.model_validate(manifest["spec"])
    dataset = world.get()
    return names.RunKey(
        uid=dataset["metadata"]["uid"],
        namespace=world.namespace,
        name="shapes",
        revision=revision_of(spec),
        store=store_of(spec),
        attempt=dataset["status"]["attempt"] + attempts,
    )


def test_the_shipped_rights_are_sufficient_and_all_are_used(installed: tuple[World, set[Right]]) -> None:
    world, granted = installed
    asked = Asked(world)

    def suspended(dataset: Json) -> bool:
        now, generation = world.condition("Suspended", dataset), dataset["metadata"]["generation"]
        return bool(now["status"] == "True" and now["observedGeneration"] == generation)

    world.apply(**SMALL, suspend=True)
    world.wait("suspended", suspended)
    world.apply(**SMALL)
    world.wait("planning", lambda _: bool(world.jobs("plan")))
    world.apply(**SMALL, suspend=True)  # which suspends the plan's Job
    world.wait("suspended again", suspended)
    with hammered(world):
        world.apply(**SMALL)
        world.wait_ready()

    # An edit; somebody has taken the name of the order, and then that of the first Job.
    edit: Json = {**SMALL, "seed": 7}
    manifest = world.manifest(**edit)
    free_order = strangers(world, "configmap", names.work_order_name(next_run(world, manifest)))
    free_job = strangers(world, "job", names.job_name(next_run(world, manifest, 2), Step.PLAN))
    world.apply(**edit)
    world.wait_stalled("NameConflict")
    free_order()
    world.annotate(f"{RETRY_ANNOTATION}=once")
    world.wait("the second conflict", lambda d: "Job" in world.condition("Stalled", d)["message"])
    free_job()
    world.annotate(f"{RETRY_ANNOTATION}=twice")
    world.wait_ready()

    delete(world)
    wait_gone(world)
    eventually(lambda: ("", "configmaps", "delete") in asked.used())

    assert lines_without_their_dataset(world) == []
    assert asked.refused() == []
    assert granted - asked.used() == UNSEEN


def lines_without_their_dataset(world: World) -> list[str]:
    """Return the log lines about the dataset that do not contain its name or its revision."""
    lines = [(line, json.loads(line)) for line in world.operator.log.read_text().splitlines()]
    about = [(line, said) for line, said in lines if "shapes" in line or said["logger"].endswith("reconciler")]
    assert {"RunStarted", "Planned", "NameConflict", "Published"} <= {
        said["message"].split(":")[0] for _, said in about
    }
    full = f"{world.namespace}/shapes"
    # With all namespaces, log lines about the datasets of other tests have their names.
    own = [(line, said) for line, said in about if said.get("dataset", full).startswith(f"{world.namespace}/")]
    return [line for line, said in own if said.get("dataset") != full or len(said.get("revision", "")) < 8]


class hammered:  # noqa: N801  (a context manager)
    """Annotates the dataset as fast as possible, so that some of the operator's writes conflict."""

    def __init__(self, world: World) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._hammer(world)))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()

    async def _hammer(self, world: World) -> None:
        path = f"/apis/diffugen.dev/v1alpha1/namespaces/{world.namespace}/labeleddatasets/shapes"
        end = time.monotonic() + 60
        async with KubeApi.from_kubeconfig(world.cluster.kubeconfig) as api:
            for number in itertools.count():
                annotated = {"metadata": {"annotations": {"hammer": str(number)}}}
                with suppress(ApiError, *UNREACHABLE):
                    await api.patch(path, annotated, content_type="application/merge-patch+json")
                if self._over.is_set() or time.monotonic() > end:
                    return


def test_both_modes_have_the_same_rules() -> None:
    wide = next(m for m in yaml.safe_load_all(RBAC.read_text()) if m["kind"] == "ClusterRole")
    single = next(m for m in yaml.safe_load_all(NAMESPACED.read_text()) if m["kind"] == "Role")

    assert wide["rules"] == single["rules"]
    assert not [rule for rule in wide["rules"] if "secrets" in rule["resources"] or "*" in rule["verbs"]]
