"""Troubles of pods and how they are reported: a table of causes, the step shown, the reason, parts of the message."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from diffugen_api.contract import Outcome
from tests.operator.lives import Life, a_life, a_plan

REFUSED = Outcome(reason="StoreCredentialsRefused", message="spec.output.s3.secretRef: the store said no.")
UNKNOWN = Outcome(reason="UnknownVariable", message="spec.prompts.templates[0]: no variable is named 'x'.")
AWAY = Outcome(reason="StoreUnreachable", message="http://minio:9000 does not answer.")
BROKEN = Outcome(reason="BadShard", message="shard 1 has no images")

Cause = Callable[[], Life]


def stalls() -> list[object]:
    return [
        pytest.param(
            lambda: a_life(output={}),
            ("", "StoreNotSet", "spec.output.s3"),
            id="no store",
        ),
        pytest.param(
            lambda: a_life(classes=[]),
            ("", "InvalidSpec", "spec.classes"),
            id="a spec that the CRD should have refused",
        ),
        pytest.param(
            lambda: a_life().until_planning().pod_ends("plan", 64, UNKNOWN).job_fails("plan", "PodFailurePolicy"),
            ("planning", "UnknownVariable", "spec.prompts.templates[0]"),
            id="a spec that no run can fulfil",
        ),
        pytest.param(
            lambda: a_life().until_planning().pod_ends("plan", 77, REFUSED).job_fails("plan", "PodFailurePolicy"),
            ("planning", "StoreCredentialsRefused", "secretRef"),
            id="refused credentials",
        ),
        pytest.param(
            lambda: a_life().until_planning().pod_ends("plan", 1, "oh no").job_fails("plan", "BackoffLimitExceeded"),
            ("planning", "PlanFailed", "exit code 1 (Error): oh no"),
            id="a plan that crashes",
        ),
        pytest.param(
            lambda: a_life().until_planning().job_fails("plan", "DeadlineExceeded", "was active too long"),
            ("planning", "DeadlineExceeded", "spec.run.activeDeadlineSeconds"),
            id="a plan over its deadline",
        ),
        pytest.param(
            lambda: a_life().until_planning().pod_ends("plan", 0, "hello").job_completes("plan"),
            ("planning", "NoOutcome", "is its image a DiffuGen generator"),
            id="an image that is no generator",
        ),
        pytest.param(
            lambda: a_life().until_planning().pod_ends("plan", 0, "[" * 4000).job_completes("plan"),
            ("planning", "NoOutcome", "left no result"),
            id="a message deeper than a parser goes",
        ),
        pytest.param(
            lambda: a_life().until_planning().plan_ends(a_plan("another")),
            ("planning", "NoOutcome", "left no result"),
            id="a plan of other stages",
        ),
        pytest.param(
            lambda: a_life().until_planning().plan_ends(a_plan("base", shards=0)),
            ("planning", "NoOutcome", "left no result"),
            id="a plan without shards for what is missing",
        ),
        pytest.param(
            lambda: (
                a_life()
                .until_drawing()
                .pod_ends("base", 65, BROKEN, index="1")
                .job_fails("base", "FailedIndexes", failedIndexes="1", completedIndexes="0,2")
            ),
            ("base", "ShardsFailed", "Shards 1 of stage base failed; the last failure: shard 1 has no images"),
            id="a shard that cannot work",
        ),
        pytest.param(
            lambda: (
                a_life()
                .until_drawing()
                .pod_ends("base", 137, index="0", word="OOMKilled")
                .job_fails("base", "MaxFailedIndexesExceeded", failedIndexes="0-2")
            ),
            ("base", "ShardsFailed", "Shards 0-2 of stage base failed; the last failure: Pod"),
            id="shards out of memory",
        ),
        pytest.param(
            lambda: (
                a_life().until_drawing().pod_ends("base", 77, REFUSED, index="0").job_fails("base", "PodFailurePolicy")
            ),
            ("base", "StoreCredentialsRefused", "the store said no"),
            id="credentials refused while drawing",
        ),
        pytest.param(
            lambda: a_life().until_publishing().job_fails("publish", "BackoffLimitExceeded", "it has failed"),
            ("publishing", "PublishFailed", "it has failed"),
            id="a publication that crashes, its pods gone",
        ),
    ]


@pytest.mark.parametrize(("cause", "said"), stalls())
def test_a_final_cause_stalls_the_run_with_its_reason(cause: Cause, said: tuple[str, str, str]) -> None:
    life = cause()

    life.settle()

    step, reason, words = said
    stalled = life.condition("Stalled")
    assert stalled is not None
    assert stalled[0] == reason
    assert words in stalled[1]
    assert life.shown()[0] == step
    assert life.shown()[2] == reason
    assert life.ready()[:2] == ("False", reason)
    assert life.condition("Reconciling") is None


@pytest.mark.parametrize(("cause", "said"), stalls())
def test_a_stalled_run_does_nothing_until_a_user_acts(cause: Cause, said: object) -> None:
    life = cause().settle()
    before = life.raw["status"]

    decision = life.later(3600).turn()

    assert list(decision.actions) == []
    assert life.raw["status"] == before


SILENT = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
"""How the node controller marks the pods of a node that is NotReady."""


def hold_ups() -> list[object]:
    return [
        pytest.param(
            lambda: a_life().until_planning().pod_ends("plan", 75, AWAY),
            ("StoreUnreachable", "http://minio:9000 does not answer. Retrying"),
            id="a store that is away",
        ),
        pytest.param(
            lambda: a_life().until_planning().pod_ends("plan", 75, AWAY).pod_runs("plan"),
            ("StoreUnreachable", "http://minio:9000 does not answer."),
            id="a store that is away, while the next pod looks again",
        ),
        pytest.param(
            lambda: a_life().until_drawing().pod_ends("base", 1, "boom", index="0"),
            ("TryingAgain", "exit code 1 (Error): boom"),
            id="a worker that crashed, and its next has not begun",
        ),
        pytest.param(
            lambda: a_life().until_planning().pod_waits("plan", "ImagePullBackOff"),
            ("ImagePullFailed", "'diffugen/generator:1'"),
            id="an image that cannot be pulled",
        ),
        pytest.param(
            lambda: (
                a_life().until_planning().pod_waits("plan", "CreateContainerConfigError", 'secret "store" not found')
            ),
            ("ContainerConfigError", 'secret "store" not found'),
            id="a missing Secret",
        ),
        pytest.param(
            lambda: a_life().until_drawing().pod_ends("base", 137, index="0", word="OOMKilled"),
            ("OutOfMemory", "raise spec.run.resources.limits.memory"),
            id="a worker that took more memory than its limit",
        ),
        pytest.param(
            lambda: (
                a_life()
                .until_drawing()
                .pod("base", "0", phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
            ),
            ("Evicted", "was evicted: The node was low on resource: memory. If that repeats, request what it needs"),
            id="a worker that its node put out",
        ),
        pytest.param(
            lambda: a_life().until_drawing().pod("base", "0", phase="Running", conditions=SILENT),
            ("NodeLost", "`kubectl delete node n7` lets the pod be replaced"),
            id="a worker on a node that does not answer",
        ),
        pytest.param(
            lambda: a_life().until_drawing().pod_unschedulable("base", "0/3 nodes: 3 Insufficient nvidia.com/gpu."),
            ("Queued", "3 Insufficient nvidia.com/gpu"),
            id="no node with a free GPU",
        ),
        pytest.param(
            lambda: a_life().until_planning().later(61),
            ("PodsNotCreated", "kubectl describe job shapes-plan-"),
            id="pods that the API server does not let in",
        ),
        pytest.param(
            lambda: a_life().until_planning().pod_starts("plan").later(121),
            ("PodsNotStarting", "kubectl describe pod shapes-plan-"),
            id="a volume that names an absent Secret",
        ),
        pytest.param(
            lambda: a_life().until_drawing().pod_starts("base").later(121),
            ("PodsNotStarting", "run.podTemplate"),
            id="a volume of a stage that names an absent Secret",
        ),
    ]


@pytest.mark.parametrize(("cause", "said"), hold_ups())
def test_a_temporary_cause_is_reported_and_tried_again(cause: Cause, said: tuple[str, str]) -> None:
    life = cause()

    life.settle()

    reason, words = said
    _, shown, message = life.ready()
    assert shown == reason
    assert words in message
    assert life.condition("Reconciling") is not None
    assert life.condition("Stalled") is None


def test_missing_pods_are_checked_when_they_are_due() -> None:
    life = a_life()
    life.turn()

    assert life.turn().reconcile_after == 61


def test_pods_that_do_not_start_are_checked_when_they_are_due_and_then_left_alone() -> None:
    life = a_life().until_planning().pod_starts("plan")

    assert life.turn().reconcile_after == 120
    assert life.later(120).turn().reconcile_after == 1
    before = life.later(1).settle().raw["status"]
    assert life.later(60).settle().raw["status"] == before
    assert life.turn().reconcile_after == 61, "its work order is looked for once a minute"


def test_a_pod_that_does_not_start_has_its_work_order_looked_for() -> None:
    life = a_life().until_planning().pod_starts("plan").later(121)
    (order,) = life.orders
    life.orders.clear()

    life.settle()

    assert life.orders == {order}


def test_a_container_that_outlives_the_generator_is_named_after_a_while() -> None:
    ended = {"name": "generator", "state": {"terminated": {"exitCode": 0, "finishedAt": "2026-11-22T12:00:00Z"}}}
    proxy = {"name": "istio-proxy", "state": {"running": {}}}
    life = a_life().until_planning().pod("plan", phase="Running", containerStatuses=[ended, proxy])

    assert life.turn().reconcile_after == 30
    assert life.shown()[2] == "Planning"
    _, reason, message = life.later(31).settle().ready()
    assert reason == "ContainerStillRunning"
    assert "container istio-proxy still runs" in message
    assert "--pod-template-policy any" in message, "the chart's default refuses such a sidecar in a template"
    assert life.condition("Stalled") is None
    assert life.later(1800).settle().condition("Stalled") is not None, "it never ends by itself"


def test_how_long_a_container_outlives_the_generator_is_not_measured_by_its_nodes_clock() -> None:
    ended = {"name": "generator", "state": {"terminated": {"exitCode": 0, "finishedAt": "2026-11-22T11:00:00Z"}}}
    proxy = {"name": "istio-proxy", "state": {"running": {}}}
    life = a_life().until_planning()
    life.pod("plan", phase="Running", containerStatuses=[ended, proxy], changedAt=life.now.isoformat())

    assert life.later(29).settle().shown()[2] == "Planning"
    assert life.later(2).settle().shown()[2] == "ContainerStillRunning"


def test_a_pod_that_starts_slowly_is_not_reported_while_others_run() -> None:
    life = a_life().until_drawing().pod_starts("base").pod_runs("base", "1").later(121)

    assert life.settle().shown()[2] == "Drawing"


@pytest.mark.parametrize(
    "word",
    [
        Outcome(reason="ShardDone", message="8 samples.", ok=True),
        Outcome(reason="Planned", plan=[a_plan("base")], ok=True),
    ],
)
@pytest.mark.parametrize("step", ["plan", "base"])
def test_a_worker_killed_after_it_reported_success_is_reported_by_its_exit_code(step: str, word: Outcome) -> None:
    life = a_life().until_planning() if step == "plan" else a_life().until_drawing()

    _, reason, message = life.pod_ends(step, 137, word).settle().ready()

    assert reason == "TryingAgain"
    assert "ended with exit code 137 (Error). Retrying" in message


@pytest.mark.parametrize("code", [64, 65, 77])
def test_a_final_failure_is_not_reported_as_tried_again(code: int) -> None:
    life = a_life().until_drawing().pod_ends("base", code, BROKEN, index="0").settle()

    assert life.shown()[2] == "Drawing"


def test_a_job_that_is_about_to_fail_is_not_reported_as_tried_again() -> None:
    life = a_life().until_drawing().pod_ends("base", 75, AWAY, index="0")
    life.job_status("base", conditions=[{"type": "FailureTarget", "status": "True"}])

    assert life.settle().shown()[2] == "Drawing"


def test_trouble_of_one_shard_is_not_reported_while_others_progress() -> None:
    life = a_life().until_drawing().pod_ends("base", 1, index="0").pod_runs("base", "1", total=8, done=3)

    assert life.settle().shown()[2] == "Drawing"


def test_a_shard_that_progresses_after_a_retry_is_not_reported() -> None:
    life = a_life().until_drawing().pod_ends("base", 1, index="0").pod_runs("base", "0", total=8, done=1)

    assert life.settle().shown()[2] == "Drawing"


def test_pods_without_a_node_are_queued_with_the_schedulers_message() -> None:
    life = a_life().until_drawing().pod_unschedulable("base", "0/3 nodes are available.").settle()

    assert life.condition("Queued") == ("Unschedulable", "0/3 nodes are available.")
    assert [stage.state for stage in life.status.stages] == ["Queued"]
    life.pod_runs("base", "0").settle()
    assert life.condition("Queued") is None
    assert [stage.state for stage in life.status.stages] == ["Running"]


def test_after_a_failed_stage_the_others_finish_and_none_starts() -> None:
    life = a_life("base", "more", run={"parallelism": 2}).until_drawing(a_plan("base"), a_plan("more"))

    life.job_fails("base", "FailedIndexes", failedIndexes="1").settle()
    assert life.condition("Stalled") is None
    assert [stage.state for stage in life.status.stages] == ["Failed", "Running"]

    life.job_completes("more").settle()
    assert life.condition("Stalled") is not None
    assert [stage.state for stage in life.status.stages] == ["Failed", "Succeeded"]
    assert "publish" not in life.job_names()


def test_a_final_refusal_stalls_the_run_with_the_api_servers_message() -> None:
    life = a_life()
    life.turn()

    life.refuse("InvalidPodTemplate", 'unknown field "spec.template.spec.nodeSelectr"')

    assert life.condition("Stalled") == ("InvalidPodTemplate", 'unknown field "spec.template.spec.nodeSelectr"')
    assert life.shown()[0] == "planning"


def test_a_request_over_quota_is_queued() -> None:
    life = a_life()
    life.turn()

    decision = life.refuse("QuotaExceeded", "exceeded quota: jobs", for_good=False)

    assert decision.reconcile_after == 30
    assert life.condition("Queued") == ("QuotaExceeded", "exceeded quota: jobs")
    assert life.condition("Stalled") is None


def test_the_time_for_pods_begins_when_a_job_is_resumed_not_when_it_is_created() -> None:
    """By the Job controller's time of the start, which changes at each resumption."""
    life = a_life(run={"queueName": "gpus"}).until_planning().later(3600)
    job = life.job("plan")
    job["spec"]["suspend"] = False
    job["status"] = {"conditions": [{"type": "Suspended", "status": "True"}]}
    assert life.settle().shown()[2] == "Planning", "the Job controller has not noticed it yet"

    job["status"] = {"conditions": [{"type": "Suspended", "status": "False"}], "startTime": life.now.isoformat()}
    assert life.later(59).settle().shown()[2] == "Planning"
    assert life.later(2).settle().shown()[2] == "PodsNotCreated"


def test_the_start_of_a_pod_is_the_time_of_its_binding_and_not_its_nodes_clock() -> None:
    life = a_life().until_planning().pod_starts("plan")
    (pod,) = life.pods.values()
    pod["status"]["startTime"] = "2026-11-22T11:00:00Z"
    bound = {"type": "PodScheduled", "status": "True", "lastTransitionTime": life.now.isoformat()}
    pod["status"]["conditions"] = [bound]

    assert life.later(119).settle().shown()[2] == "Planning"
    assert life.later(2).settle().shown()[2] == "PodsNotStarting"
