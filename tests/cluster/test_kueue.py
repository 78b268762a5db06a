"""run.queueName on a real API server; the test acts as Kueue: it suspends, admits with fewer pods, evicts, readmits."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.cluster.pods import eventually
from tests.cluster.world import ROOT, Json, World

QUEUED = {"run": {"samplesPerShard": 2, "parallelism": 2, "queueName": "gpus"}}
TOLERATION = {"key": "flavor", "value": "spot", "operator": "Equal", "effect": "NoSchedule"}


def waits(world: World, step: str) -> Json:
    """Wait until the step's Job and the status are queued; returns the Job."""

    def queued(dataset: Json) -> bool:
        jobs = world.jobs(step)
        condition = world.condition("Queued", dataset)
        return (
            bool(jobs) and condition["reason"] == "NotAdmitted" and jobs[0]["metadata"]["name"] in condition["message"]
        )

    world.wait(f"queued: {step}", queued)
    (job,) = world.jobs(step)
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    return job


def patch(world: World, job: Json, **spec: Any) -> None:
    name = job["metadata"]["name"]
    world.kubectl("patch", "job", name, "-n", world.namespace, "--type=merge", "-p", json.dumps({"spec": spec}))


def drawing(world: World) -> list[Json]:
    return [p for p in world.pods("stage") if p["status"]["phase"] == "Running"]


def test_kueue_decides_when_and_with_how_many_pods(running: World) -> None:
    running.apply(**QUEUED)

    plan = waits(running, "plan")
    time.sleep(2)
    assert running.pods() == [], "nothing runs before it is admitted"
    patch(running, plan, suspend=False)

    # Kueue grants one pod of two, on nodes that it chooses.
    stage = waits(running, "stage")
    flavor = {"spec": {"tolerations": [TOLERATION]}}
    patch(running, stage, suspend=False, parallelism=1, template=flavor)
    pods = [0]

    def admitted(dataset: Json) -> bool:
        pods.append(len(drawing(running)))
        return running.condition("Queued", dataset)["status"] == "Absent" and pods[-1] > 0

    running.wait("admitted", admitted)
    assert pods[-1] == 1

    # Kueue takes them away, as it does for a job of higher priority.
    running.wait("drawn", lambda _: bool(running.drawn_at()))
    patch(running, stage, suspend=True, parallelism=2)
    waits(running, "stage")
    running.wait("taken away", lambda _: not drawing(running))
    drawn = running.drawn_at()
    assert drawn
    assert len(drawn) < 8

    patch(running, stage, suspend=False, parallelism=1)
    patch(running, waits(running, "publish"), suspend=False)
    status = running.wait_ready()["status"]

    assert status["attempt"] == 1
    (after,) = running.jobs("stage")
    assert after["metadata"]["uid"] == stage["metadata"]["uid"]
    assert after["spec"]["parallelism"] == 1
    assert after["spec"]["template"]["spec"]["tolerations"] == [TOLERATION]
    assert {k: v for k, v in running.drawn_at().items() if k in drawn} == drawn, "what was drawn stayed"
    assert touched(running) == []


def touched(world: World) -> list[str]:
    """Return the operator's requests that changed or deleted a Job."""
    return [
        event["requestURI"]
        for event in world.cluster.writes_of("operator")
        if event["objectRef"].get("namespace") == world.namespace
        and event["objectRef"]["resource"] == "jobs"
        and event["verb"] != "create"
    ]


WORKLOADS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "workloads.kueue.x-k8s.io",
        # Groups that end so are kept for those who were reviewed; this one was.
        "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes/enhancements/pull/1111"},
    },
    "spec": {
        "group": "kueue.x-k8s.io",
        "scope": "Namespaced",
        "names": {"plural": "workloads", "singular": "workload", "kind": "Workload"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
INSUFFICIENT = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor a100"


def test_kueues_message_is_shown_where_it_may_be_read(running: World) -> None:
    cluster = running.cluster
    cluster.apply(WORKLOADS)
    try:
        eventually(lambda: "workloads" in cluster.kubectl("api-resources", "--api-group=kueue.x-k8s.io", "-o", "name"))
        cluster.apply_file(ROOT / "operator" / "rbac-kueue.yaml")
        running.apply(**QUEUED)
        plan = waits(running, "plan")

        pending = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": INSUFFICIENT}
        labels = {"kueue.x-k8s.io/job-uid": plan["metadata"]["uid"]}
        job = {"apiVersion": "batch/v1", "kind": "Job", "controller": True}
        owner = {**job, "name": plan["metadata"]["name"], "uid": plan["metadata"]["uid"]}
        place = {"name": "job-plan", "namespace": running.namespace}
        metadata = {**place, "labels": labels, "ownerReferences": [owner]}  # as Kueue makes it
        kind = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload"}
        cluster.apply({**kind, "metadata": metadata, "status": {"conditions": [pending]}})
        running.annotate("look=now")

        queued = running.wait("told", lambda d: running.condition("Queued", d)["reason"] == "Pending")
        assert INSUFFICIENT in running.condition("Queued", queued)["message"]
    finally:
        cluster.kubectl("delete", "-f", str(ROOT / "operator" / "rbac-kueue.yaml"))
        cluster.kubectl("delete", "crd", "workloads.kueue.x-k8s.io")
