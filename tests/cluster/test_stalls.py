"""Refusals by the plan step or the API server: reported in status before any GPU pod, and fixed without loss."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.cluster.world import Json, World
from tests.gitops.engines import judged

MODEL = "builtin://shapes"


def bad_specs() -> list[Any]:
    return [
        pytest.param(
            {"prompts": {"templates": ["a {shade} {object}"]}},
            ("UnknownVariable", ["spec.prompts.templates[0]", "'shade'", "spec.prompts.variables"]),
            id="a template field without a variable",
        ),
        pytest.param(
            {"prompts": {"templates": ["{object.__class__}"]}},
            ("InvalidTemplate", ["spec.prompts.templates[0]", "plain name"]),
            id="a template that reaches for attributes",
        ),
        pytest.param(
            {"prompts": {"variables": {"object": ["ball", "cube"]}}},
            ("UnknownClass", ["spec.prompts.variables.object[1]", "'cube'", "spec.classes"]),
            id="an object that is not a class",
        ),
        pytest.param(
            {"output": {"s3": {"bucket": "no-such-bucket"}}},
            ("BucketNotFound", ["spec.output.s3.bucket", "no-such-bucket", "create it"]),
            id="a missing bucket",
        ),
        pytest.param(
            {"output": {"s3": {"secretRef": {"name": "wrong"}}}},
            ("StoreCredentialsRefused", ["spec.output.s3.secretRef"]),
            id="refused credentials",
        ),
        pytest.param(
            {"stages": [{"name": "base", "txt2img": {"model": "builtin://nope"}}]},
            ("UnknownModel", ["spec.stages[0].txt2img.model", "'nope'", "shapes"]),
            id="an unknown model",
        ),
        pytest.param(
            {"run": {"podTemplate": {"spec": {"nodeSelector": {"disk": "!!"}}}}},
            ("InvalidPodTemplate", ["nodeSelector", "!!"]),
            id="a broken podTemplate",
        ),
    ]


@pytest.mark.parametrize(("changes", "said"), bad_specs())
def test_an_impossible_spec_stalls_before_any_gpu_pod_and_continues_when_fixed(
    running: World, changes: Json, said: tuple[str, list[str]]
) -> None:
    reason, words = said
    running.secret("wrong", "nobody", "wrong-password")
    running.apply(**changes)

    message = running.wait_stalled(reason)

    for word in words:
        assert word in message
    assert running.condition("Ready")["status"] == "False"
    assert running.condition("Reconciling")["status"] in {"False", "Absent"}
    assert running.get()["status"]["summary"]["reason"] == reason
    assert running.jobs("stage") == []

    running.apply()  # the fix: after a spec edit the run continues without another action
    running.wait("drawing", drawing)


def test_the_retry_annotation_continues_a_run_whose_cause_was_fixed_elsewhere(running: World) -> None:
    running.apply(output={"s3": {"bucket": f"{running.bucket}-late"}})
    running.wait_stalled("BucketNotFound")

    running.store.make_bucket(f"{running.bucket}-late")
    time.sleep(2)
    assert running.condition("Stalled")["status"] == "True", "nobody polls a cause that only a person can fix"
    running.annotate("diffugen.dev/retry-requested-at=2026-01-01T00:00:00Z")

    ready = running.wait_ready()
    assert ready["status"]["lastHandledRetryAt"] == "2026-01-01T00:00:00Z"
    assert ready["status"]["dataset"]["uri"].startswith(f"s3://{running.bucket}-late/")


def test_an_unreachable_endpoint_is_reported_and_tried_again(running: World) -> None:
    running.apply(output={"s3": {"endpoint": "http://127.0.0.1:9"}})

    def said(dataset: Json) -> bool:
        return running.condition("Ready", dataset)["reason"] == "StoreUnreachable"

    unreachable = running.wait("StoreUnreachable in status", said)
    assert judged(unreachable) == ("Progressing", "InProgress")
    status = unreachable["status"]
    assert "http://127.0.0.1:9" in running.condition("Ready", {"status": status})["message"]
    assert running.condition("Reconciling", {"status": status})["status"] == "True"
    assert running.jobs("stage") == []

    running.apply()
    running.wait("drawing", drawing)


def test_a_pod_that_fits_no_node_is_queued_with_the_schedulers_message(running: World) -> None:
    def said(dataset: Json) -> bool:
        return running.condition("Queued", dataset)["reason"] == "Unschedulable"

    running.apply(run={"podTemplate": {"spec": {"nodeSelector": {"room": "none"}}}})

    waiting = running.wait("queued for a node", said)
    assert judged(waiting) == ("Progressing", "InProgress")
    status = waiting["status"]
    queued = running.condition("Queued", {"status": status})
    assert queued["status"] == "True"
    assert queued["message"].startswith("0/1 nodes are available: ")
    assert "node affinity/selector" in queued["message"]
    assert status["summary"]["reason"] == "Queued"

    running.apply()
    running.wait("drawing", drawing)


def drawing(dataset: Json) -> bool:
    return bool(dataset["status"]["planned"]) and dataset["status"]["summary"]["reason"] in {"Queued", "Drawing"}


def test_user_namespace_and_scheduler_of_the_pod_template_reach_the_pods_under_the_restricted_policy(
    world: World,
) -> None:
    world.operator.environment = {"DIFFUGEN_POD_TEMPLATE_POLICY": "restricted"}
    world.operator.start()
    try:
        world.apply(run={"podTemplate": {"spec": {"hostUsers": False, "schedulerName": "of-another-team"}}})
        world.wait("the pod of the plan", lambda _: bool(world.pods("plan")), seconds=60)
        (pod,) = world.pods("plan")

        assert pod["spec"]["hostUsers"] is False
        assert pod["spec"]["schedulerName"] == "of-another-team"
        assert "nodeName" not in pod["spec"], "it waits for that scheduler"
    finally:
        world.operator.end()
        world.kubectl("delete", "namespace", world.namespace, "--wait=false")


def test_a_run_without_progress_stalls_and_continues_by_itself(world: World) -> None:
    def told(dataset: Json) -> bool:
        stalled = world.condition("Stalled", dataset)
        return stalled["status"] == "True" and stalled["reason"] == "NoProgress" and "late" in stalled["message"]

    world.operator.environment = {"DIFFUGEN_NO_PROGRESS_AFTER": "4"}
    world.operator.start()
    try:
        world.apply(output={"s3": {"secretRef": {"name": "late"}}})
        assert judged(world.wait("stalled, and why", told)) == ("Degraded", "Failed")
        (job,) = world.jobs()

        # Drawing is slow on a busy machine; only the plan had to be found without progress.
        world.operator.end()
        world.operator.environment = {}
        world.operator.start()
        access = world.cluster.minio
        world.secret("late", access.access_key, access.secret_key)
        status = world.wait_ready()["status"]

        assert status["attempt"] == 1
        assert job["metadata"]["uid"] in {j["metadata"]["uid"] for j in world.jobs("plan")}
    finally:
        world.operator.end()
        world.kubectl("delete", "namespace", world.namespace, "--wait=false")
