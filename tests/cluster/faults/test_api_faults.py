"""An API server that is busy, broken, slow or silent, at random: every run ends right, and Retry-After is obeyed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.faults.api_proxy import ApiProxy
from tests.cluster.faults.runs import QUICK, TINY, assert_ended_right, is_ready, seen
from tests.cluster.world import OperatorProcess, World


@pytest.fixture
def proxy(world: World, tmp_path: Path, seed: int) -> Iterator[ApiProxy]:
    """One between the operator and the API server."""
    with ApiProxy(world.cluster.operator_kubeconfig, seed=seed, odds=0.3) as proxy:
        world.operator = OperatorProcess(
            kubeconfig=proxy.kubeconfig(tmp_path / "kubeconfig"),
            namespace=world.namespace,
            log=world.operator.log,
            environment=QUICK,
        )
        yield proxy
        world.operator.end()
        world.kubectl("delete", "namespace", world.namespace, "--wait=false")


def test_a_run_ends_right_whatever_the_api_server_answers(world: World, proxy: ApiProxy, undisturbed: str) -> None:
    world.operator.start()
    world.apply(**TINY, suspend=True)
    seen(world, "suspended", lambda dataset: world.condition("Suspended", dataset)["status"] == "True")
    world.apply(**TINY)
    seen(world, "Ready", is_ready)

    print(dict(proxy.met))
    assert_ended_right(world, undisturbed)
    assert proxy.impatient == []
    assert sum(count for what, count in proxy.met.items() if "passed on" not in what) >= 5
