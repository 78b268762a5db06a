"""run.parallelism over stages side by side: never more pods than the limit, none unused while there is work."""

from __future__ import annotations

from typing import Any

import pytest

from diffugen_operator.policy.actions import ResizeJob
from diffugen_operator.policy.pod_shares import shares
from tests.operator.lives import Life, a_life, a_plan


@pytest.mark.parametrize(
    ("whole", "needs", "parts"),
    [
        (4, [12], [4]),
        (4, [3], [3]),
        (4, [12, 12], [2, 2]),
        (5, [12, 12], [3, 2]),
        (4, [12, 12, 12], [2, 1, 1]),
        (8, [1, 12, 2], [1, 5, 2]),
        (100, [3, 4], [3, 4]),
        (1, [5, 5], [1, 1]),
        (4, [0, 9], [1, 3]),
        (4, [], []),
    ],
)
def test_parts(whole: int, needs: list[int], parts: list[int]) -> None:
    assert shares(whole, needs) == parts


def drawing(parallelism: int, **shards: int) -> Life:
    life = a_life(*shards, run={"parallelism": parallelism})
    return life.until_drawing(*(a_plan(name, total=8 * count, shards=count) for name, count in shards.items()))


def sizes(life: Life) -> dict[str, int]:
    """Return the parallelism of the stages' running Jobs."""
    running = [stage.name for stage in life.status.stages if stage.state == "Running"]
    return {name: life.job(name)["spec"]["parallelism"] for name in running}


def test_stages_side_by_side_share_the_parallelism() -> None:
    assert sizes(drawing(5, base=6, more=6, few=1)) == {"base": 2, "more": 2, "few": 1}


def test_a_stage_waits_while_no_pod_is_free_for_it() -> None:
    life = drawing(1, base=3, more=3)
    assert sizes(life) == {"base": 1}
    assert [stage.state for stage in life.status.stages] == ["Running", "Pending"]

    life.job_completes("base").settle()

    assert sizes(life) == {"more": 1}


def test_pods_that_one_stage_no_longer_needs_go_to_the_others() -> None:
    life = drawing(4, base=4, more=9)
    assert sizes(life) == {"base": 2, "more": 2}

    life.job_status("base", completedIndexes="0-2").settle()
    assert sizes(life) == {"base": 2, "more": 3}, (
        "one shard is left, so one pod is: that of the other is for the asking"
    )

    life.job_completes("base").settle()
    assert sizes(life) == {"more": 4}


def test_a_lone_stage_is_never_resized() -> None:
    life = drawing(4, base=6)
    for completed in ("0", "0-2", "0-4"):
        assert list(life.job_status("base", completedIndexes=completed).turn().actions) == []


@pytest.mark.parametrize(("edited", "size"), [(6, 6), (1, 1), (100, 9)])
def test_an_edit_reaches_the_running_job(edited: int, size: int) -> None:
    life = drawing(3, base=9)

    decision = life.edit(run={"parallelism": edited}).turn()

    assert decision.actions == [ResizeJob(life.job("base")["metadata"]["name"], size)]
    assert life.status.attempt == 1
    assert list(life.turn().actions) == []


def test_a_running_stage_keeps_one_pod_even_if_there_are_fewer_pods_than_stages() -> None:
    life = drawing(4, base=9, more=9).edit(run={"parallelism": 1}).settle()

    assert sizes(life) == {"base": 1, "more": 1}


def a_from(source: str, name: str) -> dict[str, Any]:
    return {"name": name, "img2img": {"from": source, "variables": {"object": ["star"]}}}


@pytest.mark.parametrize(
    ("queue", "then", "in_the_end"),
    [
        pytest.param({}, {"b": 2, "c": 1, "d": 1}, {"b": 1, "c": 2, "d": 1}, id="no queue"),
        pytest.param({"queueName": "gpus"}, {"b": 3, "c": 1}, {"b": 1, "c": 1, "d": 2}, id="a queue"),
    ],
)
def test_later_stages_get_the_pods_that_running_stages_do_not_keep(
    queue: dict[str, str], then: dict[str, int], in_the_end: dict[str, int]
) -> None:
    life = a_life("a", "b", run={"parallelism": 4, **queue})
    life.raw["spec"]["stages"] += [a_from("a", "c"), a_from("a", "d")]
    shards = {"a": 1, "b": 8, "c": 8, "d": 8}
    life.until_drawing(*(a_plan(name, total=8 * count, shards=count) for name, count in shards.items()))
    assert at_work(life) == {"a": 1, "b": 3}

    life.job_completes("a").settle()
    assert at_work(life) == then

    life.job_status("b", completedIndexes="0-6").settle()
    assert at_work(life) == in_the_end


def at_work(life: Life) -> dict[str, int]:
    """Return the pods of each stage after Kueue, where a queue is set, has admitted all Jobs."""
    for job in life.jobs.values():
        job["spec"]["suspend"] = False
    asked, left = sizes(life.settle()), {s.name: s.shards.total - s.shards.succeeded for s in life.status.stages}
    return {name: min(size, left[name]) for name, size in asked.items()}


def test_an_edit_while_suspended_is_applied_at_resume() -> None:
    life = drawing(3, base=9).edit(suspend=True).settle()

    life.edit(run={"parallelism": 5}).settle()
    assert life.job("base")["spec"]["parallelism"] == 3
    life.edit(suspend=False).settle()

    assert sizes(life) == {"base": 5}


def test_a_job_that_is_being_deleted_is_left_alone() -> None:
    life = drawing(3, base=9)
    life.job("base")["metadata"]["deletionTimestamp"] = life.now.isoformat()

    assert list(life.edit(run={"parallelism": 5}).turn().actions) == []
