"""run.queueName with the real Kueue: admission, partial admission, preemption, HoldAndDrain, Jobs without a queue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from tests.cluster.kueue_controller import MANAGED, WITHOUT_QUEUE, a_queue, kueue_on, quiet_writes
from tests.cluster.pods import eventually, pod_spec, shell
from tests.cluster.test_kueue import drawing, touched
from tests.cluster.world import ROOT, Json, World
from tests.gitops.engines import judged

RUN = {
    "samplesPerShard": 2,
    "parallelism": 2,
    "minParallelism": 1,
    "queueName": "gpus",
    "cpuQueueName": "cpus",
    "workloadPriorityClass": "low",
}
HELD, DRAINED = {"stopPolicy": "Hold"}, {"stopPolicy": "HoldAndDrain"}


@pytest.fixture(scope="module")
def kueue(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Kueue with the operator's right to read its Workloads."""
    rights = ROOT / "operator" / "rbac-kueue.yaml"
    with kueue_on(cluster, tmp_path_factory.mktemp("kueue")) as log:
        for name, value in (("low", 10), ("high", 1000)):
            kind = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "WorkloadPriorityClass"}
            cluster.apply({**kind, "metadata": {"name": name}, "value": value})
        cluster.apply_file(rights)
        yield log
        cluster.kubectl("delete", "-f", str(rights))


def labeled(world: World, labels: dict[str, str]) -> None:
    texts = [f"{key}={value}" for key, value in labels.items()]
    world.kubectl("label", "namespace", world.namespace, *texts)


def stop_policy(world: World, policy: dict[str, Any]) -> None:
    patch = json.dumps({"spec": policy})
    name = f"{world.namespace}-gpus"
    world.kubectl("patch", "clusterqueue", name, "--type=merge", "-p", patch)


def queued_for(world: World, *words: str) -> Json:
    """Wait until the status gives Kueue's own reason, which has one of these words."""

    def told(dataset: Json) -> bool:
        condition = world.condition("Queued", dataset)
        said = f"{condition['reason']} {condition['message']}"
        return condition["status"] == "True" and any(word in said for word in words)

    queued = world.wait(f"queued: {words}", told, seconds=60)
    assert judged(queued) == ("Progressing", "InProgress")
    return queued


def an_urgent_job(world: World) -> Json:
    """Return a Job of somebody else that takes the only GPU of the quota for as long as it exists."""
    container = shell("sleep 600", resources={"limits": {"nvidia.com/gpu": 1}, "requests": {"cpu": "10m"}})
    labels = {"kueue.x-k8s.io/queue-name": "gpus", "kueue.x-k8s.io/priority-class": "high"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "urgent", "namespace": world.namespace, "labels": labels},
        "spec": {"suspend": True, "template": {"spec": pod_spec(container)}},
    }


def test_kueue_admits_in_part_preempts_and_drains(running: World, kueue: Path) -> None:
    world = running
    labeled(world, MANAGED)
    quota = {"nvidia.com/gpu": "1", "cpu": "8", "memory": "32Gi"}
    light = {"cpu": "1", "memory": "2Gi"}
    world.cluster.apply(*a_queue("gpus", world.namespace, quota, **HELD), *a_queue("cpus", world.namespace, light))
    world.apply(run=RUN, prompts={"samplesPerPrompt": 4})

    # The plan waits in its own queue, and not behind the GPUs.
    world.wait("planned", lambda d: bool(d["status"].get("planned")))
    held = queued_for(world, "stopped", "inactive", "Inadmissible", "Suspended")
    assert world.condition("Queued", held)["reason"] != "NotAdmitted"
    assert quiet_writes(world.cluster, world.namespace, 15) == [], "nothing is written while it waits"

    # An edit of parallelism that changes no waiting Job keeps its place; one of two pods fits into the quota.
    (waiting,) = world.jobs("stage")
    world.apply(run={**RUN, "resources": {"limits": {"nvidia.com/gpu": 1}}}, prompts={"samplesPerPrompt": 4})
    stop_policy(world, {"stopPolicy": "None"})
    world.wait("drawn", lambda _: bool(world.drawn_at()))
    (stage,) = world.jobs("stage")
    assert stage["metadata"]["uid"] == waiting["metadata"]["uid"]
    assert stage["spec"]["parallelism"] == 1, "Kueue admitted a part"
    assert stage["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "low"
    assert len(drawing(world)) <= 1

    # Somebody else's Job with a higher priority takes the GPU, and gives it back.
    world.cluster.apply(an_urgent_job(world))
    queued_for(world, "Preempted")
    world.kubectl("delete", "job", "urgent", "-n", world.namespace)
    world.wait("admitted again", lambda d: world.condition("Queued", d)["status"] == "Absent", seconds=120)

    # The queue is drained, as before an upgrade of its nodes.
    stop_policy(world, DRAINED)
    queued_for(world, "ClusterQueueStopped", "stopped", "inactive")
    world.wait("stopped", lambda _: not drawing(world))
    drawn = world.drawn_at()
    stop_policy(world, {"stopPolicy": "None"})

    status = world.wait_ready()["status"]
    assert status["attempt"] == 1
    assert {key: at for key, at in world.drawn_at().items() if key in drawn} == drawn, "what was drawn stayed"
    assert touched(world) == [], "Kueue alone stopped, started and sized the Jobs"


def test_jobs_without_a_queue_that_kueue_holds_are_left_to_it(running: World, kueue: Path) -> None:
    world = running
    labeled(world, {**MANAGED, **WITHOUT_QUEUE})
    world.cluster.apply(*a_queue("cpus", world.namespace, {"nvidia.com/gpu": "2", "cpu": "1", "memory": "2Gi"}))
    world.apply()

    # Kueue's reason is the last thing that is written; that the Job is suspended is written before.
    queued_for(world, "Inadmissible")
    (plan,) = world.jobs("plan")
    assert plan["spec"]["suspend"] is True
    assert quiet_writes(world.cluster, world.namespace, 15) == []
    assert touched(world) == []
    assert world.pods() == []

    world.apply(run={"queueName": "cpus"}, deletionPolicy="Delete")
    world.wait_ready()
    world.kubectl("delete", "lds", "shapes", "-n", world.namespace, "--wait=false")
    eventually(lambda: not world.items("lds"))


def test_the_example_of_queues_is_accepted(world: World, kueue: Path) -> None:
    example = ROOT / "examples" / "kueue.yaml"

    done = world.kubectl("apply", "--dry-run=server", "--validate=strict", "-n", world.namespace, "-f", str(example))

    assert done.count("created (server dry run)") >= 5, done
