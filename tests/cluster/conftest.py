"""One cluster for all tests that do not break it."""

import secrets
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from devcluster import Cluster
from tests.cluster.operator_process import OperatorProcess
from tests.cluster.pods import eventually
from tests.cluster.world import CRD, RBAC, World

RUNNING = pytest.StashKey[Cluster | None]()


@contextmanager
def reported(config: pytest.Config, **arguments: Any) -> Iterator[Cluster]:
    """Start a cluster like `Cluster.start`; while it runs, reports of failures contain its state."""
    former = config.stash.get(RUNNING, None)
    with Cluster.start(**arguments) as running:
        config.stash[RUNNING] = running
        try:
            yield running
        finally:
            config.stash[RUNNING] = former


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A control plane, MinIO and a node with two simulated GPUs."""
    with reported(request.config, gpus=2) as running:
        yield running


@pytest.fixture(scope="session")
def new_world(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    """Make a namespace with a bucket and an operator (not yet started) that watches only this namespace."""
    return worlds_of(cluster, tmp_path_factory)


def worlds_of(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    """Return the function that makes such namespaces on this cluster."""
    cluster.apply_file(CRD)
    eventually(lambda: [cluster.items("lds")])  # accepted is not yet served
    if RBAC.exists():
        cluster.apply_file(RBAC)

    def make(name: str) -> World:
        namespace = f"{name}-{secrets.token_hex(3)}"
        log = tmp_path_factory.mktemp("operator") / f"{namespace}.log"
        operator = OperatorProcess(kubeconfig=cluster.operator_kubeconfig, namespace=namespace, log=log)
        log.touch()
        return World(cluster, namespace, operator)

    return make


@pytest.fixture
def world(new_world: Callable[[str], World]) -> World:
    """A namespace in which no operator runs."""
    return new_world("still")


@pytest.fixture
def running(new_world: Callable[[str], World]) -> Iterator[World]:
    """A namespace with its operator running; the dataset is deleted in the end, so that its pods free the node."""
    world = new_world("test")
    world.operator.start()
    yield world
    world.operator.end()
    world.kubectl("delete", "namespace", world.namespace, "--wait=false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the cluster's state to the report of a failure while a cluster runs."""
    report = yield
    running = item.config.stash.get(RUNNING, None)
    if call.when != "teardown" and report.failed and running is not None:
        report.sections.append(("cluster", running.diagnose()))
    return report
