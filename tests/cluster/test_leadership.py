"""Two operators on one real control plane: one works, the other takes over, and they never both write."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devcluster import Cluster
from tests.cluster.operator_process import OperatorProcess
from tests.cluster.test_kills import SHARDS, drawing
from tests.cluster.world import World

NAMESPACE, NAME = "diffugen-system", "diffugen-operator"
LEASE = {
    "DIFFUGEN_LEASE_NAMESPACE": NAMESPACE,
    "DIFFUGEN_LEASE_DURATION": "10",
    "DIFFUGEN_LEASE_RENEW_DEADLINE": "7",
    "DIFFUGEN_LEASE_RETRY": "0.5",
}


class Replica(OperatorProcess):
    """One of two operators; its log contains the name under which it leads."""

    def leads_as(self) -> str:
        lines = self.log.read_text().splitlines()
        return next((line.rsplit(" ", 1)[1].rstrip(".") for line in lines if "Leading as " in line), "")

    def is_decided(self) -> bool:
        return any(words in self.log.read_text() for words in ("Leading as", "Standing by"))


@pytest.fixture
def replicas(world: World, cluster: Cluster, tmp_path: Path) -> Iterator[list[Replica]]:
    """A leader and a standby."""
    cluster.kubectl("delete", "lease", NAME, "-n", NAMESPACE, "--ignore-not-found")
    both = [
        Replica(
            kubeconfig=cluster.operator_kubeconfig,
            namespace=world.namespace,
            log=tmp_path / f"{name}.log",
            environment=LEASE,
        )
        for name in ("first", "second")
    ]
    world.operator = both[0]
    for replica in both:
        replica.start()
        seen(replica.is_decided)
    yield both
    for replica in both:
        replica.kill()
    world.kubectl("delete", "namespace", world.namespace, "--wait=false")


def seen(what: Callable[[], object], seconds: float = 30) -> float:
    """Wait until the condition is true; returns how long that took."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds
        time.sleep(0.05)
    return time.monotonic() - began


def holder(cluster: Cluster) -> str:
    return str(cluster.get("lease", NAME, namespace=NAMESPACE)["spec"].get("holderIdentity", ""))


def writers(cluster: Cluster, world: World) -> list[str]:
    """Return the writers to the namespace, in order, consecutive writes of one writer once."""
    found: list[str] = []
    for event in cluster.audit_events():
        reference = event.get("objectRef", {})
        agent = event.get("userAgent", "")
        if reference.get("namespace") != world.namespace or not agent.startswith("diffugen-operator/"):
            continue
        if event["verb"] not in {"create", "update", "patch", "delete"}:
            continue
        instance = agent.rsplit(" ", 1)[1]
        if found[-1:] != [instance]:
            found.append(instance)
    return found


def refusals(cluster: Cluster, replicas: list[Replica]) -> list[str]:
    """Return the requests that the API server forbade: none is expected."""
    names = {replica.leads_as() for replica in replicas} - {""}
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in cluster.audit_events()
        if event.get("responseStatus", {}).get("code") == 403 and event.get("userAgent", "").endswith(tuple(names))
    ]


@pytest.mark.parametrize(("how", "longest"), [(signal.SIGTERM, 7.0), (signal.SIGKILL, 14.0)])
def test_the_standby_takes_over_and_finishes_the_run(
    world: World, cluster: Cluster, replicas: list[Replica], how: signal.Signals, longest: float
) -> None:
    leader, standby = replicas
    world.apply(**SHARDS)
    world.wait("drawing", lambda _: drawing(world))
    assert holder(cluster) == leader.leads_as()

    leader.end(how)
    after = seen(standby.leads_as)

    assert after <= longest
    status = world.wait_ready()["status"]
    assert status["attempt"] == 1
    assert len(world.jobs()) == 3, "no step was run twice"
    assert writers(cluster, world) == [leader.leads_as(), standby.leads_as()]
    assert refusals(cluster, replicas) == []


def test_a_leader_that_was_frozen_writes_nothing_when_it_wakes(
    world: World, cluster: Cluster, replicas: list[Replica]
) -> None:
    leader, standby = replicas
    world.apply(**SHARDS)
    world.wait("drawing", lambda _: drawing(world))

    os.kill(leader.pid, signal.SIGSTOP)
    seen(standby.leads_as)
    os.kill(leader.pid, signal.SIGCONT)

    assert leader.exit_code() not in (0, None), "it ends with an error, so that a Deployment starts it again"
    assert "The Lease is lost" in leader.log.read_text()
    world.wait_ready()
    assert writers(cluster, world) == [leader.leads_as(), standby.leads_as()]
    assert holder(cluster) == standby.leads_as()
