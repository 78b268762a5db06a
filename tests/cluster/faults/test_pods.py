"""Troubles of pods: each is reported in a condition that tells what to do, and the run ends correctly.

One dataset meets all of them: a missing image, a missing Secret, too little memory; then its pods are evicted, deleted
and killed while they draw.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.cluster.faults.runs import TINY, assert_ended_right, is_ready, seen
from tests.cluster.faults.store_proxy import HoldingStore
from tests.cluster.pods import eventually
from tests.cluster.test_kills import is_running
from tests.cluster.world import Json, World, merged


def test_each_trouble_of_pods_is_reported_with_what_to_do(running: World, undisturbed: str) -> None:
    def limited(memory: str | None, **run: object) -> Json:
        limits = {"nvidia.com/gpu": "1", **({"memory": memory} if memory else {})}
        return merged(TINY, {"run": {"resources": {"limits": limits}, **run}})

    secret = {"output": {"s3": {"secretRef": {"name": "late"}}}}
    running.apply(**limited(None, image="registry.invalid/none:1"))
    assert "run.image" in told(running, "ImagePullFailed")

    running.apply(**limited("100Mi"), **secret)
    message = told(running, "ContainerConfigError")
    assert '"late" not found' in message
    assert "Create or fix what it names" in message

    access = running.cluster.minio
    running.secret("late", access.access_key, access.secret_key)
    assert "spec.run.resources.limits.memory" in told(running, "OutOfMemory")

    running.apply(**limited("8Gi"), **secret)
    assert_ended_right(running, undisturbed, attempts=seen(running, "Ready", is_ready)["status"]["attempt"])


def test_evicted_deleted_and_killed_pods_cause_no_second_job(running: World, undisturbed: str) -> None:
    # Where each shard's pod is held until it is stopped: before its first image, or after its last.
    places = ["GET 00000.jsonl.gz", "GET 00001.jsonl.gz", "GET 00002.jsonl.gz", "PUT 00003.json"]
    blows: list[Callable[[World, Json], None]] = [evict, delete, kill, kill]
    with HoldingStore(running.cluster.minio.endpoint, held=places) as store:
        output = {"s3": {"endpoint": store.url}}
        running.apply(**merged(TINY, {"run": {"samplesPerShard": 1}, "output": output}))

        struck: list[Json] = []
        for index, (place, blow) in enumerate(zip(places, blows, strict=True)):
            seen(running, f"shard {index} at {place}", partial(is_asked_for, store, place))
            seen(running, f"a running pod of shard {index}", partial(is_under_way, running, index))
            (pod,) = running_pods_of(running, index)
            drawn = running.drawn_at()
            blow(running, pod)
            store.let_go(place)
            seen(running, f"the end of shard {index}'s pod", partial(has_failed, running, pod))
            struck.append(pod)

        seen(running, "Ready", is_ready)
    assert_ended_right(running, undisturbed)
    for index, former in enumerate(struck):
        last = [pod for pod in pods_of(running, index) if pod["metadata"]["name"] != former["metadata"]["name"]]
        assert [pod["status"]["phase"] for pod in last] == ["Succeeded"], "one other pod in its place"
    now = running.drawn_at()
    assert drawn
    assert {key: now[key] for key in drawn} == drawn, "what was drawn stayed"
    (job,) = running.jobs("stage")
    assert job["status"]["succeeded"] == 4
    assert job["status"]["failed"] == 2, "the killed ones: that a pod is sent away is not held against its shard"


def told(world: World, reason: str) -> str:
    """Wait until the status shows this reason; returns the message."""

    def said(dataset: Json) -> bool:
        return bool(world.condition("Reconciling", dataset)["reason"] == reason)

    message: str = world.condition("Ready", seen(world, reason, said))["message"]
    return message


def pods_of(world: World, index: int) -> list[Json]:
    """Return the pods of this shard."""
    label = "batch.kubernetes.io/job-completion-index"
    return [pod for pod in world.pods("stage") if pod["metadata"]["labels"][label] == str(index)]


def is_asked_for(store: HoldingStore, place: str, _: Json) -> bool:
    """Whether a pod is held at this request."""
    return place in store.asked


def is_under_way(world: World, index: int, _: Json) -> bool:
    """Whether a pod of this shard runs."""
    return bool(running_pods_of(world, index))


def running_pods_of(world: World, index: int) -> list[Json]:
    return [pod for pod in pods_of(world, index) if is_running(pod)]


def has_failed(world: World, pod: Json, _: Json) -> bool:
    """Whether this pod has ended without its shard; a deleted or evicted pod may no longer exist."""
    phases = {each["metadata"]["uid"]: each["status"]["phase"] for each in world.pods("stage")}
    return phases.get(pod["metadata"]["uid"], "Failed") == "Failed"


def evict(world: World, pod: Json) -> None:
    """Evict like `kubectl drain`: the pod becomes a DisruptionTarget."""
    name, namespace = pod["metadata"]["name"], world.namespace
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    with told_to_end(pod):
        world.cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def delete(world: World, pod: Json) -> None:
    with told_to_end(pod):
        world.kubectl("delete", "pod", pod["metadata"]["name"], "-n", world.namespace, "--wait=false")


def kill(_: World, pod: Json) -> None:
    os.kill(process_of(pod), signal.SIGKILL)


@contextmanager
def told_to_end(pod: Json) -> Iterator[None]:
    """Wait until the pod's process has received SIGTERM; it is stopped meanwhile, so that the signal stays pending."""
    process = process_of(pod)

    def is_pending() -> bool:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return bool(int(fields["ShdPnd"], 16) & 1 << signal.SIGTERM - 1)

    os.kill(process, signal.SIGSTOP)
    yield
    eventually(is_pending)
    os.kill(process, signal.SIGCONT)


def process_of(pod: Json) -> int:
    """Return the process that runs as the pod's container."""
    return int(pod["status"]["containerStatuses"][0]["containerID"].removeprefix("process://"))
