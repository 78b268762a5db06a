"""One real node with the images of this checkout on it, for all end-to-end tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Cluster
from tests.e2e.images import bring_minio, bring_own, remove_leftovers
from tests.e2e.installation import Installation
from tests.e2e.requirements import missing

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these tests unless they are asked for; end the run if they cannot run, and say what is missing."""
    if os.environ.get("E2E") != "1":
        for item in items:
            if _HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="end to end: `make e2e` runs this, as root"))
        return
    if sentence := missing():
        pytest.exit(sentence, returncode=1)


@pytest.fixture(scope="session", autouse=True)
def _leave_no_containers() -> Iterator[None]:
    """Remove what a killed run has left of its builds, and at the end what an interrupted one would leave."""
    remove_leftovers(within_s=0)
    yield
    remove_leftovers(within_s=20)


@pytest.fixture(scope="session")
def node() -> Iterator[Cluster]:
    """A cluster with a real node that has two simulated GPUs and no images."""
    with Cluster.start(node_kind="kubelet", gpus=2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def operator_only(node: Cluster) -> Installation:
    """The store, and the images without torch on the node."""
    bring_minio(node)
    bring_own(node, "operator")
    bring_own(node, "light")
    installation = Installation(node)
    installation.prepare()
    return installation


@pytest.fixture(scope="session")
def whole(operator_only: Installation) -> Installation:
    """All images."""
    bring_own(operator_only.cluster, "models")
    return operator_only
