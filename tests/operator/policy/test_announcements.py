"""Which status changes are written at once, and which Events are posted."""

from __future__ import annotations

import pytest

from diffugen_api.contract import Outcome, StagePlan
from diffugen_api.v1alpha1 import LabeledDatasetStatus
from diffugen_operator.policy.announcements import announcements, is_transition
from tests.operator.lives import Life, a_life, a_plan


def told(life: Life) -> list[str]:
    """Take turns until nothing changes; return the reasons of the Events on the way."""
    reasons: list[str] = []
    while True:
        before = life.status
        life.turn()
        if life.status == before:
            return reasons
        reasons += [announcement.reason for announcement in announcements(before, life.status)]


def test_a_whole_run_is_reported_in_five_events() -> None:
    life = a_life()

    assert told(life) == ["RunStarted"]
    assert told(life.plan_ends(a_plan("base"))) == ["Planned", "StageStarted"]
    assert told(life.pod_runs("base", "0", total=8, done=3)) == []
    assert told(life.job_completes("base")) == ["StageSucceeded"]
    assert told(life.publish_ends()) == ["Published"]
    assert told(life.later(600)) == []


def test_the_start_of_a_run_says_that_the_plan_is_next_and_not_that_the_spec_is_accepted() -> None:
    life = a_life()
    before = life.status
    life.turn()

    (started,) = announcements(before, life.status)

    assert started.message == f"Attempt 1, revision {life.status.revision}: The dataset is new; its plan is made first."


@pytest.mark.parametrize(
    ("plans", "words"),
    [
        (
            [a_plan("base", total=16, shards=2, gpu=False)],
            "16 samples: 0 to draw, 16 to label again, 0 complete; 2 shards.",
        ),
        (
            [a_plan("base", total=24, reused=8, shards=2), a_plan("more", total=6, shards=1)],
            "30 samples: 22 to draw, 0 to label again, 8 complete; 3 shards.",
        ),
        ([a_plan("base", reused=24, shards=0)], "24 samples: 0 to draw, 0 to label again, 24 complete; 0 shards."),
    ],
)
def test_the_plan_event_counts_images_to_draw_and_to_label(plans: list[StagePlan], words: str) -> None:
    life = a_life(*(plan.name for plan in plans)).until_planning().plan_ends(*plans)
    before = life.status

    decision = life.turn()

    told = {one.reason: one.message for one in announcements(before, life.status, decision.plan)}
    assert told["Planned"] == words
    assert not life.turn().plan, "it is told once"


def test_warnings_of_the_plan_are_events_and_stay_in_the_status_until_the_next_run() -> None:
    warning = "spec.labeling.attention.background: no prompt names sky."
    life = a_life().until_planning()
    life.pod_ends("plan", 0, Outcome(reason="Planned", plan=[a_plan("base")], warnings=[warning])).job_completes("plan")
    before = life.status
    decision = life.turn()

    told = announcements(before, life.status, decision.plan, warnings=decision.warnings)
    assert [(one.reason, one.message) for one in told if one.warning] == [("PlanWarning", warning)]
    assert life.settle().status.warnings == [warning]
    assert life.edit(seed=9).settle().status.warnings == []


def test_values_that_cannot_be_read_are_told_once() -> None:
    life = a_life().until_drawing()
    unreadable = ["status.stages[0].state", "status.summary.state", "status.planned", "status.store"]

    (said,) = announcements(life.status, life.status, unreadable=unreadable)

    assert (said.reason, said.warning) == ("StatusUnreadable", True)
    assert said.message.startswith("status.stages[0].state, status.summary.state, status.planned and 1 more has a ")


def test_stages_without_work_are_not_reported() -> None:
    life = a_life().until_planning().plan_ends(a_plan("base", reused=24, shards=0))

    assert told(life) == ["Planned"]


def test_a_stall_is_reported_once_with_its_message() -> None:
    life = a_life().until_planning().pod_ends("plan", 64, Outcome(reason="UnknownModel", message="no such"))

    assert told(life.job_fails("plan", "PodFailurePolicy")) == ["UnknownModel"]
    assert told(life.later(60)) == []


def test_suspending_and_resuming_are_reported() -> None:
    life = a_life().until_drawing()

    assert told(life.edit(suspend=True)) == ["Suspended"]
    assert told(life.edit(suspend=False)) == ["Resumed"]


def test_a_blocked_run_is_reported_once() -> None:
    life = a_life().until_planning().pod_ends("plan", 75, Outcome(reason="StoreUnreachable", message="away"))

    assert told(life) == ["StoreUnreachable"]
    assert told(life.pod_ends("plan", 75, Outcome(reason="StoreUnreachable", message="away"))) == []


def moved(life: Life) -> tuple[LabeledDatasetStatus, LabeledDatasetStatus]:
    before = life.status
    life.turn()
    return before, life.status


def test_a_change_of_numbers_may_wait() -> None:
    life = a_life().until_drawing().pod_runs("base", "0", total=8, done=3)
    before, after = moved(life)

    assert before != after
    assert not is_transition(before, after)


def test_another_wording_of_the_same_reason_may_wait() -> None:
    life = a_life().until_drawing().pod_unschedulable("base", "0/3 nodes").settle()
    life.pods.clear()
    before, after = moved(life.pod_unschedulable("base", "0/4 nodes"))

    assert before != after
    assert not is_transition(before, after)


def test_the_begin_of_the_plan_may_wait_as_its_end_is_written_anyway() -> None:
    life = a_life()
    life.turn()
    before, after = moved(life)

    assert (before.summary.reason, after.summary.reason) == ("Accepted", "Planning")
    assert not is_transition(before, after)
    queued = a_life(run={"queueName": "gpus"})
    queued.turn()
    assert is_transition(*moved(queued)), "that it waits is written at once"


def test_a_change_of_state_may_not_wait() -> None:
    assert is_transition(*moved(a_life()))
    assert is_transition(*moved(a_life().until_planning().plan_ends(a_plan("base"))))
    assert is_transition(*moved(a_life().until_drawing().edit(run={"parallelism": 2})))
    assert is_transition(*moved(a_life().until_publishing().publish_ends()))
