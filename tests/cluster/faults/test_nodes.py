"""A node is lost while it draws: it comes back, or it stays away and another node continues."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from devcluster import Cluster
from tests.cluster.conftest import reported, worlds_of
from tests.cluster.faults.runs import TINY, assert_ended_right, is_ready, seen
from tests.cluster.faults.store_proxy import HoldingStore
from tests.cluster.faults.test_pods import told
from tests.cluster.world import World, merged


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two nodes with a GPU each; a lost node is marked soon, and its pods are evicted soon after."""
    missed_soon = {"node_monitor_grace_s": 8, "unreachable_toleration_s": 2}
    with reported(request.config, gpus=1, nodes=2, **missed_soon) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def new_world(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    """A namespace on this cluster."""
    return worlds_of(cluster, tmp_path_factory)


@pytest.mark.parametrize("comes_back", [True, False], ids=["it comes back", "it is gone for good"])
def test_a_node_is_lost_while_it_draws(running: World, undisturbed: str, comes_back: bool) -> None:
    first_drawn = "PUT recipe.json"  # where both pods are held until one is lost
    with HoldingStore(running.cluster.minio.endpoint, held=[first_drawn]) as store:
        running.apply(**merged(TINY, {"output": {"s3": {"endpoint": store.url}}}))
        seen(running, "drawing on both", lambda _: len(nodes_that_draw(running)) == 2 and first_drawn in store.asked)

        running.cluster.nodes[1].kill()
        store.let_go(first_drawn)
        message = told(running, "NodeLost")
        assert "Node node-1 does not answer" in message
        assert "`kubectl delete node node-1`" in message

        if comes_back:
            running.cluster.nodes[1].start()
        else:
            running.kubectl("delete", "node", "node-1")
        seen(running, "Ready", is_ready)
    assert_ended_right(running, undisturbed)


def nodes_that_draw(world: World) -> set[str]:
    return {pod["spec"]["nodeName"] for pod in world.pods("stage") if pod["status"]["phase"] == "Running"}
