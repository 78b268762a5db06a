"""Progress of a stage: complete shards plus the numbers that pods report; it never goes back."""

from __future__ import annotations

from typing import Any

import pytest

from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_operator.observed.progress import Cut, Meter, Meters, Shard, eta_seconds, parse_indexes, samples_done
from diffugen_operator.policy.announcements import images_between
from tests.operator.lives import Life, a_life, a_plan, spec_data


def a_cut(missing: int, size: int) -> Cut:
    spec = LabeledDatasetSpec.model_validate(spec_data(run={"samplesPerShard": size}))
    return Cut.of(spec, missing, -(-missing // size))


@pytest.mark.parametrize(
    ("text", "indexes"),
    [("", []), ("0", [0]), ("0,2", [0, 2]), ("0-2,5,7-8", [0, 1, 2, 5, 7, 8])],
)
def test_completed_indexes_are_ranges(text: str, indexes: list[int]) -> None:
    assert [index for span in parse_indexes(text) for index in span] == indexes


@pytest.mark.parametrize(
    ("completed", "done"),
    [("", 0), ("0", 10), ("0-1", 20), ("2", 5), ("0-2", 25)],
)
def test_the_last_shard_holds_the_remainder(completed: str, done: int) -> None:
    assert samples_done(a_cut(25, 10), completed, []) == done


def test_numbers_of_pods_are_added_up_to_the_total() -> None:
    cut = a_cut(25, 10)

    assert samples_done(cut, "0", [Shard(10, 4), Shard(5, 1)]) == 15
    assert samples_done(cut, "0-1", [Shard(10, 99)]) == 25


def test_after_an_edit_the_shard_size_follows_from_the_number_of_shards() -> None:
    spec = LabeledDatasetSpec.model_validate(spec_data(run={"samplesPerShard": 3}))

    assert Cut.of(spec, 25, 3).size == 9


def test_progress_never_goes_back_within_a_run() -> None:
    life = a_life().until_drawing(a_plan("base", total=24, shards=3))
    life.pod_runs("base", "0", total=8, done=6).settle()
    assert life.shown()[1] == "6/24"

    life.pods.clear()  # the pod died; the next one counts from zero
    life.pod_runs("base", "0", total=8, done=1).settle()
    assert life.shown()[1] == "6/24"

    life.job_status("base", completedIndexes="0").settle()
    assert life.shown()[1] == "8/24"


def failed(life: Life) -> Life:
    """The stage has drawn 14 of 24 samples when its Job fails."""
    life.until_drawing(a_plan("base", total=24, shards=3))
    life.job_status("base", completedIndexes="0").pod_runs("base", "1", total=8, done=6).settle()
    life.pods.clear()
    life.pod_ends("base", 1, index="1").job_fails("base", "FailedIndexes", failedIndexes="1").settle()
    assert (life.shown()[1:], life.status.summary.percent) == (("14/24", "ShardsFailed"), 58)
    return life


def test_progress_never_goes_back_when_the_revision_is_tried_again() -> None:
    life = failed(a_life(run={"samplesPerShard": 8})).ask_for_retry().settle()
    assert (life.status.attempt, life.shown()) == (2, ("planning", "14/24", "Planning"))
    assert life.status.summary.percent == 58
    (stage,) = life.status.stages
    assert (stage.state, stage.job, stage.shards.total) == ("Pending", "", 0), "of what comes, only the plan can tell"

    life.plan_ends(a_plan("base", total=24, reused=15, shards=2)).settle()
    assert life.shown() == ("base", "15/24", "Drawing")
    life.job_status("base", completedIndexes="0").settle()
    assert life.shown() == ("base", "23/24", "Drawing")


def test_progress_never_goes_back_when_it_is_planned_again_automatically() -> None:
    life = a_life().until_publishing().job_completes("publish").settle().stopped().settle()

    assert (life.status.attempt, life.shown()[:2]) == (2, ("planning", "24/24"))
    life.plan_ends(a_plan("base", reused=24, shards=0)).settle()
    assert life.shown()[:2] == ("publishing", "24/24")


def test_after_a_new_plan_deleted_images_do_not_count_as_done() -> None:
    life = failed(a_life()).ask_for_retry().settle()
    assert life.shown()[1] == "14/24"

    life.plan_ends(a_plan("base", total=24, reused=5, shards=3)).settle()

    assert life.shown() == ("base", "5/24", "Drawing")


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"seed": 2}, id="another revision"),
        pytest.param({"output": {"s3": {"endpoint": "http://minio:9000", "bucket": "elsewhere"}}}, id="another store"),
    ],
)
def test_a_new_run_has_no_progress_at_first(edit: dict[str, Any]) -> None:
    life = failed(a_life()).edit(**edit).settle()

    assert (life.status.attempt, life.shown()[1], life.status.stages) == (2, "", [])


def test_an_image_counts_as_drawn_once_over_all_attempts() -> None:
    life, drawn = failed(a_life()).ask_for_retry(), 14
    for plays in (lambda: None, lambda: life.plan_ends(a_plan("base", total=24, reused=15, shards=2))):
        plays()
        for _ in range(3):
            before = life.status
            life.turn()
            drawn += images_between(before, life.status)

    assert drawn == 15, "the last one was drawn, though nobody had looked"


def test_a_complete_shard_counts_once_while_its_pod_still_reports() -> None:
    life = a_life().until_drawing(a_plan("base", total=600, shards=3))
    life.job_status("base", completedIndexes="0")
    life.pod_runs("base", "0", total=200, done=200).settle()

    assert life.shown()[1] == "200/600"


def test_percent_rate_and_time_left_cover_the_whole_run() -> None:
    life = a_life().until_drawing(a_plan("base", total=600, shards=3))
    life.job_status("base", completedIndexes="0")
    life.pace = 3.14
    life.settle()

    summary = life.status.summary
    assert (summary.percent, summary.images_per_second, summary.eta_seconds) == (33, "3.1", 128)


def test_each_running_stage_has_its_own_rate_and_time_left() -> None:
    plans = a_plan("fast", total=40, shards=4), a_plan("slow", total=40, shards=4)
    life = a_life("fast", "slow", run={"samplesPerShard": 10, "parallelism": 4}).until_drawing(*plans)
    life.job_status("fast", completedIndexes="0-1").job_status("slow", completedIndexes="0")
    life.pace, life.paces = 2.5, {"fast": 2.0, "slow": 0.5}
    life.settle()

    assert [(stage.images_per_second, stage.eta_seconds) for stage in life.status.stages] == [("2.0", 10), ("0.5", 60)]

    life.job_completes("fast").settle()
    assert [(stage.images_per_second, stage.eta_seconds) for stage in life.status.stages] == [("", None), ("0.5", 60)]

    life.edit(suspend=True).settle()
    assert [(stage.images_per_second, stage.eta_seconds) for stage in life.status.stages] == [("", None), ("", None)]


def test_stages_are_measured_side_by_side() -> None:
    meters = Meters()
    for second in range(0, 60, 5):
        meters.record(second, {"fast": 2 * second, "slow": second, "waits": 0})

    pace = meters.pace()
    assert pace.whole == pytest.approx(3.0)
    assert pace.stages == {"fast": pytest.approx(2.0), "slow": pytest.approx(1.0)}


def test_the_rate_is_measured_over_the_last_minute() -> None:
    meter = Meter()
    assert meter.pace() is None
    for second in range(0, 300, 5):
        meter.record(second, 100 + second * (1 if second < 200 else 2))

    assert meter.pace() == pytest.approx(2.0)


def test_a_rate_of_zero_is_unknown() -> None:
    meter = Meter()
    meter.record(0, 10)
    meter.record(5, 10)

    assert meter.pace() is None
    assert eta_seconds(100, meter.pace()) is None
