"""Stalled=NoProgress: a run without any progress gets this condition and loses it with the next progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from diffugen_api.contract import Outcome
from diffugen_operator.settings import Settings
from tests.operator.lives import Life, a_life, a_plan

HALF_AN_HOUR = 1800
AWAY = Outcome(reason="StoreUnreachable", message="http://minio:9000 does not answer.")
QUEUE: dict[str, Any] = {"run": {"queueName": "gpus"}}


def drawing() -> Life:
    return a_life().until_drawing(a_plan("base", total=24, shards=3)).pod_runs("base", "0", total=8, done=3).settle()


def hanging() -> Life:
    return drawing().later(HALF_AN_HOUR).settle()


@pytest.mark.parametrize(
    ("life", "words"),
    [
        pytest.param(drawing, "Stage base draws and labels images.", id="a worker that hangs"),
        pytest.param(
            lambda: a_life().until_planning().pod("plan", phase="Pending").settle(),
            "The plan step checks",
            id="a pod whose volume is never mounted",
        ),
        pytest.param(
            lambda: a_life().until_planning().pod_waits("plan", "ImagePullBackOff").settle(),
            "cannot be pulled: check run.image",
            id="an image that cannot be pulled",
        ),
        pytest.param(
            lambda: a_life().until_planning().later(61).settle(), "kubectl describe job", id="pods that never come"
        ),
    ],
)
def test_a_run_stalls_after_half_an_hour_and_the_message_names_the_running_work(
    life: Callable[[], Life], words: str
) -> None:
    played = life()
    since = played.status.last_progress_time
    assert since is not None
    played.later(HALF_AN_HOUR - 120).settle()
    assert played.condition("Stalled") is None

    played.later(120).settle()

    stalled = played.condition("Stalled")
    assert stalled is not None
    assert stalled[0] == "NoProgress"
    assert stalled[1].startswith(f"No progress since {since}. ")
    assert words in stalled[1]
    assert played.condition("Reconciling") is None
    assert played.ready()[:2] == ("False", "NoProgress")


def test_the_jobs_of_a_stalled_run_are_kept() -> None:
    life = drawing().later(HALF_AN_HOUR)

    assert list(life.turn().actions) == []
    assert life.job_names() == ["base", "plan"]


def test_at_rest_nothing_is_written() -> None:
    life = hanging()
    before = life.raw["status"]

    life.later(4 * HALF_AN_HOUR).settle()

    assert life.raw["status"] == before


@pytest.mark.parametrize(
    "move",
    [
        pytest.param(lambda life: life.pod_runs("base", "1", total=8, done=1), id="a sample"),
        pytest.param(lambda life: life.job_status("base", completedIndexes="0"), id="a shard"),
        pytest.param(lambda life: life.job_completes("base"), id="a stage"),
    ],
)
def test_any_progress_ends_the_stall(move: Callable[[Life], Life]) -> None:
    life = hanging()

    move(life).settle()

    assert life.condition("Stalled") is None
    assert life.condition("Reconciling") is not None
    assert life.status.attempt == 1
    life.later(HALF_AN_HOUR - 1).settle()
    assert life.condition("Stalled") is None, "the time starts again"


def test_a_run_that_continued_is_published() -> None:
    life = hanging().job_completes("base").settle().publish_ends().settle()

    assert life.ready()[0] == "True"


def test_a_stage_that_fails_later_stalls_with_its_own_reason() -> None:
    life = hanging().pod_ends("base", 1, index="0").job_fails("base", "FailedIndexes", failedIndexes="0").settle()

    assert life.shown()[2] == "ShardsFailed"


def test_a_worker_that_crashes_and_restarts_is_no_progress() -> None:
    life = drawing()
    for _ in range(3):
        life.pods.clear()
        life.shards.clear()
        life.later(700).pod_ends("base", 1, "boom", index="0").pod_runs("base", "0", total=8, done=2).settle()

    assert life.shown()[2] == "NoProgress"


@pytest.mark.parametrize("act", [lambda life: life.ask_for_retry(), lambda life: life.edit(run={"parallelism": 2})])
def test_an_edit_or_a_retry_begins_the_run_again(act: Callable[[Life], Life]) -> None:
    life = hanging()

    act(life).settle()

    assert life.status.attempt == 2
    assert life.condition("Stalled") is None


@pytest.mark.parametrize(
    ("wait", "on"),
    [
        pytest.param(
            lambda: a_life().until_drawing().pod_unschedulable("base", "0/3 nodes."),
            lambda life: life.pod_runs("base", "0"),
            id="for a node",
        ),
        pytest.param(
            lambda: a_life(**QUEUE).settle(),
            lambda life: life.job("plan")["spec"].update(suspend=False),
            id="in a queue",
        ),
        pytest.param(lambda: drawing().edit(suspend=True), lambda life: life.edit(suspend=False), id="suspended"),
    ],
)
def test_waiting_is_no_stall_and_the_time_begins_when_the_wait_ends(
    wait: Callable[[], Life], on: Callable[[Life], object]
) -> None:
    life = wait().settle()

    life.later(10 * HALF_AN_HOUR).settle()
    assert life.condition("Stalled") is None
    on(life)
    life.settle().later(HALF_AN_HOUR - 60).settle()

    assert life.condition("Stalled") is None


def beside_a_queued_one(*names: str) -> Life:
    """Two stages: "stuck" waits for a node, "busy" has a pod."""
    life = a_life(*names, run={"parallelism": 2}).until_drawing(*(a_plan(name) for name in names))
    return life.pod_unschedulable("stuck", "0/3 nodes.").pod_runs("busy", "0", total=8, done=3).settle()


@pytest.mark.parametrize("names", [("stuck", "busy"), ("busy", "stuck")])
def test_a_hanging_stage_beside_a_queued_one_stalls_the_run_and_both_are_reported(names: tuple[str, str]) -> None:
    life = beside_a_queued_one(*names)
    assert life.shown() == ("busy", "3/48", "Drawing")
    assert life.condition("Queued") == ("Unschedulable", "0/3 nodes.")

    life.later(HALF_AN_HOUR).settle()

    assert life.shown()[2] == "NoProgress"
    assert "Stage busy draws" in life.ready()[2]
    assert life.condition("Queued") == ("Unschedulable", "0/3 nodes.")
    assert list(life.later(HALF_AN_HOUR).turn().actions) == []


def test_a_stage_that_progresses_beside_a_queued_one_prevents_a_stall_and_then_the_run_is_queued() -> None:
    life = beside_a_queued_one("stuck", "busy").later(HALF_AN_HOUR - 60)
    life.job_status("busy", completedIndexes="0").settle().later(HALF_AN_HOUR - 60).settle()
    assert life.shown() == ("busy", "8/48", "Drawing")

    life.job_completes("busy").settle().later(10 * HALF_AN_HOUR).settle()
    assert life.shown()[2] == "Queued"
    assert life.condition("Stalled") is None


def test_a_publish_step_does_not_stall_while_its_pod_runs_and_gets_the_full_time_after() -> None:
    life = a_life().until_publishing().pod_runs("publish").settle()
    life.later(10 * HALF_AN_HOUR).settle()
    assert life.condition("Stalled") is None

    life.pods.clear()
    life.pod_ends("publish", 75, AWAY)
    end = f"{life.now:%Y-%m-%dT%H:%M:%SZ}"
    next(iter(life.pods.values()))["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = end
    assert life.later(60).settle().shown()[2] == "StoreUnreachable"

    assert life.later(HALF_AN_HOUR).settle().shown()[2] == "NoProgress"


def test_a_plan_does_not_stall_while_its_pod_runs_even_if_a_stage_has_its_name() -> None:
    life = a_life("planning").until_drawing(a_plan("planning")).job_fails("planning", "BackoffLimitExceeded")

    life.settle().ask_for_retry().settle().pod_runs("plan").settle().later(10 * HALF_AN_HOUR).settle()

    assert life.shown() == ("planning", "0/24", "Planning")


def test_the_run_is_checked_when_the_stall_is_due() -> None:
    life = a_life().until_planning().pod("plan", phase="Pending").settle()

    assert life.later(600).turn().reconcile_after == HALF_AN_HOUR - 600


def test_the_check_can_be_switched_off() -> None:
    life = a_life(settings=Settings(no_progress_after=0)).until_drawing().later(10 * HALF_AN_HOUR).settle()

    assert life.condition("Stalled") is None


def test_a_failed_stage_whose_message_is_shortened_in_a_full_status_is_no_progress() -> None:
    bad = [f"{place:02d}" + "s" * 28 for place in range(15)]
    plans = [a_plan(name) for name in (*bad, "slow")]
    life = a_life(*bad, "slow", run={"parallelism": 16}).until_drawing(*plans).pod_runs("slow", "0", total=8, done=3)
    for name in bad:
        life.pod_ends(name, 65, Outcome(reason="BadShard", message="\U0001f600" * 300), index="0")
        life.job_fails(name, "FailedIndexes", failedIndexes="0")
    life.settle()
    assert len(life.status.stages[0].message) < 128

    life.later(HALF_AN_HOUR).settle()

    assert life.shown()[2] == "NoProgress"


def training() -> Life:
    stages = [
        {
            "name": "concept",
            "textualInversion": {
                "model": "builtin://shapes",
                "images": "s3://photos/gem",
                "token": "<gem>",
                "initializer": "star",
            },
        },
        {"name": "base", "txt2img": {"model": "builtin://shapes", "embeddings": [{"from": "concept"}]}},
    ]
    plan = [a_plan("concept", total=1, shards=1), a_plan("base", total=24, shards=3)]
    return a_life(stages=stages).until_drawing(*plan).pod_runs("concept", "0", total=2000, done=3).settle()


def test_the_steps_of_a_training_are_progress() -> None:
    life = training()
    assert (life.status.stages[0].samples.done, life.status.stages[0].message) == (0, "Step 3 of 2,000.")

    for step in range(1000, 1004):
        life.pods.clear()
        life.later(HALF_AN_HOUR - 60).pod_runs("concept", "0", total=2000, done=step).settle()
        assert life.condition("Stalled") is None
    assert life.status.stages[0].message == "Step 1,003 of 2,000."

    life.pods.clear()  # a pod that starts again from a checkpoint has done nothing new
    life.later(HALF_AN_HOUR).pod_runs("concept", "0", total=2000, done=990).settle()
    assert life.condition("Stalled") is not None
    assert life.status.stages[0].message == "Step 1,003 of 2,000."

    life.job_completes("concept").settle()
    assert (life.status.stages[0].samples.done, life.status.stages[0].message) == (1, "")
    assert life.condition("Stalled") is None
