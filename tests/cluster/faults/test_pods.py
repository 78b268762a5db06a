"""What becomes of pods: each trouble is told in a condition that says what to do, and the run ends right all the same.

One dataset goes through all of it, as a life that goes badly: an image that is not there, a Secret that is missing,
too little memory; then its pods are evicted, deleted and killed while they draw.
"""

from __future__ import annotations

import json

from tests.cluster.faults.runs import TINY, assert_ended_right, is_ready, seen
from tests.cluster.test_kills import kill_worker
from tests.cluster.world import Json, World, merged


def test_what_keeps_pods_from_their_work_is_told_with_what_to_do(running: World, undisturbed: str) -> None:
    def limited(memory: str | None, **run: object) -> Json:
        limits = {"nvidia.com/gpu": "1", **({"memory": memory} if memory else {})}
        return merged(TINY, {"run": {"resources": {"limits": limits}, **run}})

    secret = {"output": {"s3": {"secretRef": {"name": "late"}}}}
    running.apply(**limited(None, image="registry.invalid/none:1"))
    assert "run.image" in told(running, "ImagePullFailed")

    running.apply(**limited("100Mi"), **secret)
    message = told(running, "ContainerConfigError")
    assert '"late" not found' in message
    assert "Create or mend what it names" in message

    access = running.cluster.minio
    running.secret("late", access.access_key, access.secret_key)
    assert "spec.run.resources.limits.memory" in told(running, "OutOfMemory")

    running.apply(**limited("8Gi"), **secret)
    assert_ended_right(running, undisturbed, attempts=seen(running, "Ready", is_ready)["status"]["attempt"])


def test_pods_that_are_evicted_deleted_and_killed_cost_no_second_job(running: World, undisturbed: str) -> None:
    running.apply(**merged(TINY, {"run": {"samplesPerShard": 1}}))

    for index, blow in {"0": evict, "1": delete, "2": kill_worker}.items():
        seen(running, f"a pod of shard {index}", lambda _, i=index: pod_of(running, i))
        blow(running, pod_of(running, index))

    seen(running, "Ready", is_ready)
    assert_ended_right(running, undisturbed)
    (job,) = running.jobs("stage")
    assert job["status"]["succeeded"] == 4
    assert job["status"]["failed"] >= 3, "each blow ended a pod"


def told(world: World, reason: str) -> str:
    """Wait until the dataset is held up for this reason; returns the message."""

    def said(dataset: Json) -> bool:
        return bool(world.condition("Reconciling", dataset)["reason"] == reason)

    message: str = world.condition("Ready", seen(world, reason, said))["message"]
    return message


def pod_of(world: World, index: str) -> str:
    """Return the name of the pod that draws this shard, if one does."""
    for pod in world.pods("stage"):
        its = pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
        if its == index and pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]:
            return str(pod["metadata"]["name"])
    return ""


def evict(world: World, name: str) -> None:
    """As `kubectl drain` does it: the pod becomes a DisruptionTarget."""
    namespace = world.namespace
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    world.cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def delete(world: World, name: str) -> None:
    world.kubectl("delete", "pod", name, "-n", world.namespace, "--wait=false")
