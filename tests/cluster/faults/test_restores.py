"""What the API server has goes back or away: etcd is restored, the CRD is deleted, the operator is an older one."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devcluster import Cluster
from tests.cluster.conftest import reported, worlds_of
from tests.cluster.faults.test_api_faults import SELDOM_LISTED
from tests.cluster.pods import eventually
from tests.cluster.world import CRD, Json, World


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of its own, whose API server these tests stop and whose CRD they change; the last test leaves it so."""
    with reported(request.config, nodes=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def new_world(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    """A namespace on this cluster."""
    return worlds_of(cluster, tmp_path_factory)


@contextmanager
def operating(world: World, *, silence_s: int) -> Iterator[None]:
    """Run the operator, which lists seldom and begins a watch again that is silent for `silence_s` seconds."""
    world.operator.environment = {**SELDOM_LISTED, "DIFFUGEN_WATCH_SILENCE": str(silence_s)}
    world.operator.start()
    try:
        yield
    finally:
        world.operator.end()


def stopped(cluster: Cluster, *, replace: Path | None = None, keep: Path | None = None) -> None:
    """Stop etcd and the API server, copy etcd's data to `keep` or from `replace`, and start both again."""
    data = cluster.directory.data / "etcd"
    cluster.apiserver.kill()
    cluster.etcd.kill()
    if keep is not None:
        shutil.copytree(data, keep)
    if replace is not None:
        shutil.rmtree(data)
        shutil.copytree(replace, data)
    cluster.etcd.start()
    cluster.apiserver.start()


def suspended(world: World, generation: int) -> Json:
    """Wait until the operator has seen this generation of the suspended dataset."""

    def seen(dataset: Json) -> bool:
        condition = world.condition("Suspended", dataset)
        return (condition["status"], condition.get("observedGeneration")) == ("True", generation)

    return world.wait(f"generation {generation} suspended", seen, seconds=120)


def test_edits_are_heard_after_etcd_was_restored_from_a_snapshot(
    cluster: Cluster, new_world: Callable[[str], World], tmp_path: Path
) -> None:
    world = new_world("restored")
    # No regular list comes in time, and no watch is silent for long enough: it must notice by itself.
    with operating(world, silence_s=300):
        world.apply(suspend=True)
        suspended(world, 1)
        stopped(cluster, keep=tmp_path / "snapshot")
        for number in range(40):  # What is lost by the restore: versions that are never reached again in this test.
            world.annotate(f"example.com/look={number}")
        world.apply(suspend=True, seed=5)
        lost = suspended(world, 2)["metadata"]["resourceVersion"]

        stopped(cluster, replace=tmp_path / "snapshot")
        assert world.get()["metadata"]["generation"] == 1
        world.apply(suspend=True, seed=7)
        heard = suspended(world, 2)

        assert int(heard["metadata"]["resourceVersion"]) < int(lost), "the versions went back"
        assert "Traceback" not in world.operator.log.read_text()
        world.kubectl("delete", "lds", "shapes", "-n", world.namespace)  # else the CRD could not be deleted below


def readiness(world: World) -> int:
    """Return the status code of the operator's /readyz."""
    (port,) = eventually(lambda: re.findall(r"Probes and metrics at \S+:(\d+)\.", world.operator.log.read_text()))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_datasets_are_heard_again_after_their_crd_was_deleted_and_installed_again(
    cluster: Cluster, new_world: Callable[[str], World]
) -> None:
    world = new_world("without-crd")
    with operating(world, silence_s=60):
        world.apply(suspend=True)
        suspended(world, 1)
        pid = world.operator.pid
        assert readiness(world) == 200

        cluster.kubectl("delete", "crd", "labeleddatasets.diffugen.dev")
        eventually(lambda: "The CRD is not installed; waiting for it." in world.operator.log.read_text())
        assert readiness(world) == 503

        cluster.apply_file(CRD)
        eventually(lambda: [cluster.items("lds")])
        world.apply(suspend=True)
        suspended(world, 1)
        eventually(lambda: readiness(world) == 200)
        log = world.operator.log.read_text()
        assert (log.count("The CRD is not installed"), log.count("Traceback")) == (1, 0)
        assert world.operator.pid == pid


def test_a_status_of_a_later_version_is_read_as_far_as_possible_and_replaced(
    cluster: Cluster, new_world: Callable[[str], World]
) -> None:
    """As after a rollback: the CRD is still that of the later version, so the API server keeps what it wrote."""
    world = new_world("rolled-back")
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/status"
    patch = json.dumps([{"op": "replace", "path": path, "value": anything}])
    cluster.kubectl("patch", "crd", "labeleddatasets.diffugen.dev", "--type=json", "-p", patch)
    world.operator.start()
    try:
        world.apply(suspend=True)
        before = suspended(world, 1)["status"]
        world.operator.end()
        later = {
            "novelty": {"deep": [1]},
            "summary": {**before["summary"], "novelty": 1},
            "stages": [{"name": "base", "kind": "txt2img", "state": "Paused"}],
            "conditions": [{**condition, "novelty": 1} for condition in before["conditions"]],
        }
        status = json.dumps({"status": later})
        world.kubectl(
            "patch", "lds", "shapes", "-n", world.namespace, "--subresource=status", "--type=merge", "-p", status
        )

        world.operator.start()
        replaced = world.wait("replaced", lambda d: "novelty" not in d["status"], seconds=60)["status"]

        assert replaced["stages"] == []
        assert replaced["attempt"] == before["attempt"]
        assert [c["type"] for c in replaced["conditions"]] == [c["type"] for c in before["conditions"]]
        (event,) = eventually(lambda: [each for each in world.items("events") if each["reason"] == "StatusUnreadable"])
        assert "status.stages[0].state" in event["message"]
        world.apply(suspend=True, seed=3)
        suspended(world, 2)
    finally:
        world.operator.end()
