"""A busy, broken, slow or silent API server, at random: every run ends correctly, and Retry-After is obeyed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.faults.api_proxy import FAULTS, ApiFront, ApiProxy, FreezingApi, RefusingApi
from tests.cluster.faults.runs import QUICK, TINY, assert_ended_right, is_ready, seen
from tests.cluster.operator_process import OperatorProcess
from tests.cluster.pods import eventually
from tests.cluster.world import World

SELDOM_LISTED = {**QUICK, "DIFFUGEN_RESYNC_INTERVAL": "600", "DIFFUGEN_WATCH_SILENCE": "5"}
"""Settings under which watches must recover from faults alone: no regular list comes in time."""

WATCHED = ["labeleddatasets", "jobs", "pods"]


@pytest.fixture
def operated(world: World) -> Iterator[World]:
    """The world; its operator and namespace are deleted in the end."""
    yield world
    world.operator.end()
    world.kubectl("delete", "namespace", world.namespace, "--wait=false")


def operator_behind(api: ApiFront, world: World, kubeconfig: Path) -> OperatorProcess:
    """Return the world's operator, which reaches the API server only through this proxy."""
    return OperatorProcess(
        kubeconfig=api.kubeconfig(kubeconfig),
        namespace=world.namespace,
        log=world.operator.log,
        environment=SELDOM_LISTED,
    )


def test_a_run_ends_correctly_under_all_faults_of_the_api_server(
    operated: World, tmp_path: Path, seed: int, undisturbed: str
) -> None:
    world = operated
    with ApiProxy(world.cluster.operator_kubeconfig, seed=seed, odds=0.3) as api:
        world.operator = operator_behind(api, world, tmp_path / "kubeconfig")
        world.operator.start()
        world.apply(**TINY, suspend=True)
        seen(world, "suspended", lambda dataset: world.condition("Suspended", dataset)["status"] == "True")
        world.apply(**TINY)
        seen(world, "Ready", is_ready)

        print(dict(api.met))
        assert_ended_right(world, undisturbed)
        assert api.impatient == []
        assert {(kind, fault) for kind, faults in FAULTS.items() for fault in faults} - set(api.met) == set()


def test_a_frozen_watch_is_started_again_with_at_most_one_new_list(
    operated: World, tmp_path: Path, undisturbed: str
) -> None:
    world = operated
    with FreezingApi(world.cluster.operator_kubeconfig) as api:
        world.operator = operator_behind(api, world, tmp_path / "kubeconfig")
        world.operator.environment = {**SELDOM_LISTED, "DIFFUGEN_WATCH_SILENCE": "45"}
        world.operator.start()
        eventually(lambda: api.lists["jobs"] == 2)  # at the start, and once soon after

        api.freeze(WATCHED)
        world.apply(**TINY)
        seen(world, "Ready", is_ready)

        eventually(lambda: sorted(api.given_up) == sorted(WATCHED))
        # The watch of Jobs has no event while that of datasets is frozen, then freezes itself: the objects are listed
        # once, after two watches in a row without an event.
        assert api.lists["jobs"] <= 3
        assert_ended_right(world, undisturbed)


@pytest.mark.parametrize("codes", [(401,), (410,), (404,), (500, 403, 410)], ids=str)
def test_a_refused_watch_of_datasets_ends_neither_the_process_nor_the_watching(
    codes: tuple[int, ...], operated: World, tmp_path: Path
) -> None:
    world = operated
    with RefusingApi(world.cluster.operator_kubeconfig) as api:
        world.operator = operator_behind(api, world, tmp_path / "kubeconfig")
        world.operator.environment = {**SELDOM_LISTED, "DIFFUGEN_WATCH_SILENCE": "60"}
        world.operator.start()
        world.apply(**TINY, suspend=True)
        seen(world, "suspended", lambda dataset: world.condition("Suspended", dataset)["status"] == "True")
        eventually(lambda: set(WATCHED) <= set(api.watches))
        before, pid = dict(api.watches), world.operator.pid

        api.refuse_watch("labeleddatasets", *codes)
        eventually(lambda: [code for _, code in api.refused] == list(codes))
        again = WATCHED if codes == (401,) else WATCHED[:1]
        eventually(lambda: all(api.watches[kind] > before[kind] for kind in again), within_s=60)
        world.apply(**TINY)
        heard = world.wait("planned", lambda dataset: bool(dataset["status"].get("planned")), seconds=90)

        assert heard["status"]["attempt"] == 1
        assert world.operator.pid == pid
        assert "Traceback" not in world.operator.log.read_text()


def test_a_refused_write_causes_a_new_login_that_restarts_every_watch(operated: World, tmp_path: Path) -> None:
    world = operated
    with RefusingApi(world.cluster.operator_kubeconfig) as api:
        world.operator = operator_behind(api, world, tmp_path / "kubeconfig")
        world.operator.environment = {**SELDOM_LISTED, "DIFFUGEN_WATCH_SILENCE": "60"}
        world.operator.start()
        eventually(lambda: set(WATCHED) <= set(api.watches))
        before = dict(api.watches)
        api.refuse_write("labeleddatasets/status", 401)

        world.apply(**TINY, suspend=True)
        seen(world, "suspended", lambda dataset: world.condition("Suspended", dataset)["status"] == "True")
        eventually(lambda: all(api.watches[kind] > before[kind] for kind in WATCHED), within_s=60)
        world.apply(**TINY)

        world.wait("planned", lambda dataset: bool(dataset["status"].get("planned")), seconds=90)
