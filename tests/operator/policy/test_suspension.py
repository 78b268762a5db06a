"""spec.suspend: the Jobs stop, nothing is lost, and the run continues from the same point."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from diffugen_operator.observed.base import Trouble
from diffugen_operator.policy.actions import DeleteJob, SuspendJob
from tests.operator.lives import Life, a_life, a_plan


@pytest.mark.parametrize(
    ("life", "running"),
    [
        pytest.param(a_life().until_planning(), ["plan"], id="planning"),
        pytest.param(
            a_life("base", "more", run={"parallelism": 2}).until_drawing(a_plan("base"), a_plan("more")),
            ["base", "more"],
            id="drawing",
        ),
        pytest.param(a_life().until_publishing(), ["publish"], id="publishing"),
    ],
)
def test_in_each_phase_the_running_jobs_are_suspended_and_resumed(life: Life, running: list[str]) -> None:
    step = life.shown()[0]

    suspended = life.edit(suspend=True).turn()

    assert all(isinstance(action, SuspendJob) for action in suspended.actions)
    assert all(life.job(what)["spec"]["suspend"] for what in running)
    assert life.condition("Suspended") is not None
    assert life.shown()[0] == step
    assert life.shown()[2] == "Suspended"
    assert list(life.turn().actions) == [], "once is enough"

    life.edit(suspend=False).settle()

    assert not any(life.job(what)["spec"]["suspend"] for what in running)
    assert life.condition("Suspended") is None
    assert life.status.attempt == 1


@pytest.mark.parametrize("life", [a_life().until_planning(), a_life().until_drawing(), a_life().until_publishing()])
def test_a_spec_that_became_invalid_has_no_pods_until_it_is_fixed(life: Life) -> None:
    good = life.raw["spec"]

    life.edit(classes=[]).settle()

    assert life.condition("Stalled") is not None
    unfinished = [job for job in life.jobs.values() if not job["status"].get("conditions")]
    assert [job["spec"]["suspend"] for job in unfinished] == [True]
    assert list(life.turn().actions) == [], "once is enough"
    life.edit(**good).settle().stopped().settle()
    assert life.status.attempt == 2
    assert life.job("plan")["spec"].get("suspend") in (None, False)


def two_stages() -> Life:
    plans = a_plan("base"), a_plan("more")
    return a_life("base", "more", run={"parallelism": 1}).until_drawing(*plans)


@pytest.mark.parametrize(
    ("life", "ends", "step", "goes_on"),
    [
        pytest.param(
            a_life().until_planning(), lambda life: life.plan_ends(a_plan("base")), "plan", ["base"], id="the plan"
        ),
        pytest.param(two_stages(), lambda life: life.job_completes("base"), "base", ["more"], id="a stage"),
        pytest.param(a_life().until_publishing(), lambda life: life.publish_ends(), "publish", [], id="publish"),
    ],
)
def test_a_step_that_ended_while_suspended_does_not_run_again_after_its_job_was_collected(
    life: Life, ends: Callable[[Life], Life], step: str, goes_on: list[str]
) -> None:
    life.edit(suspend=True).settle()

    ends(life).settle().collected(step).settle()
    assert step not in life.job_names(), "nothing is created while suspended"
    before = set(life.jobs)
    life.edit(suspend=False).settle()

    begun = [life.jobs[name]["metadata"]["labels"] for name in life.jobs.keys() - before]
    assert [labels.get("diffugen.dev/stage") for labels in begun] == goes_on
    assert life.status.attempt == 1


def test_the_end_of_a_step_while_suspended_is_reported_as_usual() -> None:
    life = two_stages().edit(suspend=True).settle()

    life.job_completes("base").settle()

    base, more = life.status.stages
    assert (base.state, base.samples.done, base.completion_time) == ("Succeeded", 24, "2026-11-22T12:30:00Z")
    assert (more.state, more.job) == ("Pending", "")
    assert life.shown() == ("base", "24/48", "Suspended")


def test_a_plan_that_ends_while_suspended_is_reported_once() -> None:
    life = a_life().until_planning().edit(suspend=True).settle()

    assert life.plan_ends(a_plan("base")).turn().plan == [a_plan("base")]
    assert not life.turn().plan


def test_a_publication_that_ends_while_suspended_is_ready() -> None:
    life = a_life().until_publishing().edit(suspend=True).settle()

    life.publish_ends().settle()

    assert life.ready()[:2] == ("True", "Published")
    assert life.status.dataset is not None
    assert life.condition("Suspended") is not None


def test_a_plan_without_a_result_waits_with_the_suspended_run() -> None:
    life = a_life().until_planning().edit(suspend=True).settle().job_completes("plan").settle()
    assert (life.status.planned, life.shown()[2]) == (False, "Suspended")

    life.edit(suspend=False).settle()

    assert life.status.attempt == 2


def test_the_end_of_a_step_while_the_spec_is_invalid_is_in_the_status() -> None:
    life = two_stages().edit(classes=[]).settle()
    life.job_completes("base").settle().collected("base").settle()
    assert [stage.state for stage in life.status.stages] == ["Succeeded", "Pending"]

    life = a_life().until_publishing().edit(classes=[]).settle()
    life.publish_ends().settle().collected("publish").settle()
    assert life.status.dataset is not None
    assert life.shown()[2] == "InvalidSpec"
    assert list(life.later(600).turn().actions) == []


def test_a_final_refusal_leaves_no_job_running() -> None:
    life = a_life("base", "more", run={"parallelism": 1}).until_drawing(a_plan("base"), a_plan("more"))
    life.edit(run={"parallelism": 2, "podTemplate": {"spec": {"nodeSelectr": {}}}})

    assert life.refuse("InvalidPodTemplate", "unknown field").reconcile_after == 0
    life.settle()

    assert life.condition("Stalled") is not None
    assert life.job("base")["spec"]["suspend"] is True


def test_a_job_of_a_queue_is_deleted_where_the_spec_became_invalid() -> None:
    life = a_life(run={"queueName": "gpus"}).until_planning()

    assert [type(action) for action in life.edit(classes=[]).turn().actions] == [DeleteJob]


def test_a_dataset_that_is_suspended_from_the_start_creates_nothing() -> None:
    life = a_life(suspend=True).settle()

    assert life.job_names() == []
    assert life.shown() == ("planning", "", "Suspended")


def test_an_edit_while_suspended_begins_a_run_that_waits() -> None:
    life = a_life().until_drawing().edit(suspend=True).settle()

    life.edit(seed=2).settle()
    life.stopped().settle()

    assert life.status.attempt == 2
    assert life.job_names() == []
    life.edit(suspend=False).settle()
    assert life.job_names() == ["plan"]


@pytest.mark.parametrize(
    "life",
    [
        pytest.param(a_life(run={"queueName": "gpus"}).until_planning(), id="in Kueue's queue"),
        pytest.param(a_life().until_drawing().pod_unschedulable("base", "0/3 nodes"), id="in line for a node"),
        pytest.param(a_life().until_planning().pod_waits("plan", "ImagePullBackOff"), id="an image"),
        pytest.param(a_life().until_planning().pod_starts("plan").later(121), id="a volume"),
    ],
)
def test_a_blocked_run_is_suspended_without_a_new_attempt(life: Life) -> None:
    life.settle().edit(suspend=True).settle().stopped().settle()

    assert life.status.attempt == 1
    assert life.condition("Suspended") is not None
    assert life.status.observed_generation == 2


def test_a_stalled_run_that_is_suspended_begins_again_when_it_is_resumed() -> None:
    life = a_life().until_planning().job_fails("plan", "BackoffLimitExceeded").settle()

    life.edit(suspend=True, run={"image": "mine:2"}).ask_for_retry().settle()

    assert (life.status.attempt, life.status.observed_generation) == (1, 2)
    assert (life.condition("Stalled") is None, life.condition("Suspended") is None) == (False, False)
    assert list(life.turn().actions) == []
    assert life.edit(suspend=False).settle().status.attempt == 2
    assert life.job_names() == ["plan"]


def test_a_fixed_spec_is_not_reported_as_invalid_while_suspended() -> None:
    life = a_life().until_planning()
    good = life.raw["spec"]

    life.edit(classes=[]).settle().edit(**good, suspend=True).settle().stopped().settle()

    assert life.condition("Stalled") is None
    assert life.shown()[2] == "Suspended"


def test_a_published_dataset_stays_ready_when_suspended() -> None:
    life = a_life().until_published().edit(suspend=True).settle()

    assert life.ready()[0] == "True"
    assert life.condition("Suspended") is not None
    assert life.condition("Reconciling") is None


def test_no_rate_is_shown_while_suspended() -> None:
    life = a_life().until_drawing()
    life.pace = 3.0
    life.edit(suspend=True).settle()

    assert (life.status.summary.images_per_second, life.status.summary.eta_seconds) == ("", None)


def test_a_job_that_somebody_else_suspended_is_queued_and_never_resumed_against_them() -> None:
    life = a_life().until_planning().held("plan").settle()

    assert life.job("plan")["spec"]["suspend"] is True
    assert life.shown()[2] == "Queued"
    reason, message = life.condition("Queued") or ("", "")
    assert reason == "JobHeld"
    assert "is suspended but not by this operator (Kueue may hold Jobs without a queue)" in message

    life.held("plan", by="kubectl-patch").settle()
    assert "is suspended by kubectl-patch" in (life.condition("Queued") or ("", ""))[1]

    life.held("plan", suspend=False).settle()
    assert life.condition("Queued") is None
    assert life.shown()[2] == "Planning"


def test_a_job_without_a_queue_that_kueue_holds_is_explained() -> None:
    life = a_life().until_planning().held("plan")
    name = life.job("plan")["metadata"]["name"]
    life.queue_reasons = {name: Trouble(reason="Pending", message="no quota is left")}

    reason, message = life.settle().condition("Queued") or ("", "")

    assert reason == "Pending"
    assert message.endswith("which has no queue: no quota is left.")


def test_a_held_job_is_unchanged_by_a_suspension_of_the_dataset() -> None:
    life = a_life().until_planning().held("plan")

    assert life.edit(suspend=True).settle().job("plan")["spec"]["suspend"] is True
    life.edit(suspend=False).settle()

    assert life.job("plan")["spec"]["suspend"] is True
    assert life.shown()[2] == "Queued"


def test_a_job_that_somebody_resumes_while_the_dataset_is_suspended_is_deleted() -> None:
    life = a_life().until_planning().edit(suspend=True).settle().held("plan", suspend=False)

    decision = life.turn()

    assert [type(action) for action in decision.actions] == [DeleteJob]
    life.stopped().edit(suspend=False).settle()
    assert life.job_names() == ["plan"]
    assert not life.job("plan")["spec"].get("suspend")


def test_a_run_that_an_operator_without_marks_suspended_is_resumed_after_an_upgrade() -> None:
    life = a_life().until_drawing().edit(suspend=True).settle()
    life.job("base")["metadata"]["annotations"] = {}
    life.held("base", by="diffugen-operator")  # by the API server's record of who set spec.suspend

    life.edit(suspend=False).settle()

    assert life.job("base")["spec"]["suspend"] is False
    assert life.shown()[2] == "Drawing"


def test_a_job_that_a_webhook_holds_is_not_resumed_after_the_operator_has_resized_it() -> None:
    life = a_life(run={"parallelism": 2}).until_drawing().held("base").settle()

    life.edit(run={"parallelism": 3}).settle()
    life.held("base", by="diffugen-operator").settle()  # The resize is its creator's last change.

    assert life.job("base")["spec"]["parallelism"] == 3
    assert life.job("base")["spec"]["suspend"] is True
    reason, message = life.condition("Queued") or ("", "")
    assert reason == "JobHeld"
    assert "but not by this operator" in message
