"""An API server that is busy, broken, slow or silent, at random: every run ends right, and Retry-After is obeyed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.faults.api_proxy import FAULTS, ApiFront, ApiProxy, FreezingApi
from tests.cluster.faults.runs import QUICK, TINY, assert_ended_right, is_ready, seen
from tests.cluster.pods import eventually
from tests.cluster.world import OperatorProcess, World

SELDOM_LISTED = {**QUICK, "DIFFUGEN_RESYNC_INTERVAL": "600", "DIFFUGEN_WATCH_SILENCE": "5"}
"""An operator whose watches have to get over what befalls them: nothing is listed anew in time."""

WATCHED = ["labeleddatasets", "jobs", "pods"]


@pytest.fixture
def operated(world: World) -> Iterator[World]:
    """The world, whose operator and namespace go in the end."""
    yield world
    world.operator.end()
    world.kubectl("delete", "namespace", world.namespace, "--wait=false")


def operator_behind(api: ApiFront, world: World, kubeconfig: Path) -> OperatorProcess:
    """Return the world's operator, which reaches the API server by this proxy alone."""
    return OperatorProcess(
        kubeconfig=api.kubeconfig(kubeconfig),
        namespace=world.namespace,
        log=world.operator.log,
        environment=SELDOM_LISTED,
    )


def test_a_run_ends_right_whatever_the_api_server_answers(
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


def test_a_watch_that_freezes_is_begun_anew_without_a_new_list(
    operated: World, tmp_path: Path, undisturbed: str
) -> None:
    world = operated
    with FreezingApi(world.cluster.operator_kubeconfig) as api:
        world.operator = operator_behind(api, world, tmp_path / "kubeconfig")
        world.operator.start()
        eventually(lambda: api.lists["jobs"] == 2)  # at the start, and once soon after

        api.freeze(WATCHED)
        world.apply(**TINY)
        seen(world, "Ready", is_ready)

        eventually(lambda: sorted(api.given_up) == sorted(WATCHED))
        assert api.lists["jobs"] == 2
        assert_ended_right(world, undisturbed)
