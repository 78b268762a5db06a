"""The graph of stages: when each stage begins, and which stages a failure stops."""

from __future__ import annotations

from typing import Any

import pytest

from diffugen_api.v1alpha1 import Stage, StageStatus
from diffugen_operator.policy.stage_graph import blocked, ready, sources
from tests.operator.lives import Life, a_life, a_plan, spec_data

GRAPH = {"base": (), "other": (), "rain": ("base",), "snow": ("base",), "both": ("rain", "other"), "last": ("both",)}


def stages(**states: Any) -> list[StageStatus]:
    return [StageStatus(name=name, kind="txt2img", state=states.get(name, "Pending")) for name in GRAPH]


@pytest.mark.parametrize(
    ("states", "begin", "stopped"),
    [
        ({}, ["base", "other"], {}),
        ({"base": "Running", "other": "Queued"}, [], {}),
        ({"base": "Succeeded", "other": "Running"}, ["rain", "snow"], {}),
        ({"base": "Succeeded", "other": "Succeeded", "rain": "Succeeded", "snow": "Running"}, ["both"], {}),
        ({"base": "Failed"}, ["other"], {"rain": "base", "snow": "base", "both": "base", "last": "base"}),
        ({"base": "Succeeded", "other": "Failed"}, ["rain", "snow"], {"both": "other", "last": "other"}),
        (
            {"base": "Succeeded", "rain": "Failed", "other": "Succeeded"},
            ["snow"],
            {"both": "rain", "last": "rain"},
        ),
        (dict.fromkeys(GRAPH, "Succeeded"), [], {}),
    ],
)
def test_which_stages_begin_and_which_are_stopped(
    states: dict[str, str], begin: list[str], stopped: dict[str, str]
) -> None:
    assert ready(stages(**states), GRAPH) == begin
    assert blocked(stages(**states), GRAPH) == stopped


def img2img(name: str, source: str) -> dict[str, Any]:
    return {"name": name, "img2img": {"from": source, "variables": {"object": ["star"]}}}


def test_sources_are_read_from_the_spec_for_every_kind() -> None:
    assert sources(Stage.model_validate(spec_data("base")["stages"][0])) == ()
    assert sources(Stage.model_validate(img2img("rain", "base"))) == ("base",)
    inpaint = {"name": "red", "inpaint": {"from": "rain", "replacements": {"ball": ["red ball"]}}}
    assert sources(Stage.model_validate(inpaint)) == ("rain",)


def drawing(parallelism: int = 4) -> Life:
    """Two stages draw from text; a third has the first as its source, and a fourth has the third."""
    base, other = spec_data("base", "other")["stages"]
    graph = [base, other, img2img("rain", "base"), img2img("storm", "rain")]
    life = a_life(stages=graph, run={"parallelism": parallelism})
    return life.until_drawing(*(a_plan(name, total=8, shards=2) for name in ("base", "other", "rain", "storm")))


def states(life: Life) -> dict[str, str]:
    return {stage.name: stage.state for stage in life.status.stages}


def sizes(life: Life) -> dict[str, int]:
    return {name: life.job(name)["spec"]["parallelism"] for name, state in states(life).items() if state == "Running"}


def test_a_stage_begins_as_soon_as_its_source_is_done_and_shares_the_pods() -> None:
    life = drawing()
    assert sizes(life) == {"base": 2, "other": 2}

    life.job_completes("base").settle()
    assert states(life) == {"base": "Succeeded", "other": "Running", "rain": "Running", "storm": "Pending"}
    assert sizes(life) == {"other": 2, "rain": 2}

    life.job_completes("other").job_completes("rain").settle()
    assert states(life)["storm"] == "Running"
    assert "publish" not in life.job_names()
    life.job_completes("storm").settle()
    assert "publish" in life.job_names()


def test_with_one_pod_the_stages_run_in_the_order_of_the_spec() -> None:
    life, order = drawing(1), []
    while "publish" not in life.job_names():
        (name,) = sizes(life)
        order.append(name)
        life.job_completes(name).settle()

    assert order == ["base", "other", "rain", "storm"]


def test_a_failure_stops_only_dependent_stages_and_the_run_stalls_when_the_rest_is_done() -> None:
    life = drawing(1).job_fails("base", "FailedIndexes", failedIndexes="1").settle()

    assert states(life) == {"base": "Failed", "other": "Running", "rain": "Pending", "storm": "Pending"}
    assert life.condition("Stalled") is None
    messages = {stage.name: stage.message for stage in life.status.stages}
    assert messages["rain"] == messages["storm"] == "It depends on stage base, which failed."

    life.job_completes("other").settle()
    assert states(life)["other"] == "Succeeded"
    assert (life.condition("Stalled") or ("", ""))[0] == "ShardsFailed"
    assert life.shown()[0] == "base"


def test_after_a_retry_complete_stages_do_not_run_again() -> None:
    life = drawing(1).job_fails("base", "FailedIndexes", failedIndexes="1").settle().job_completes("other").settle()

    life.ask_for_retry().settle().stopped().settle()
    done = [a_plan(name, total=8, reused=8, shards=0) for name in ("other",)]
    life.plan_ends(a_plan("base", total=8, shards=1), *done, a_plan("rain", total=8), a_plan("storm", total=8)).settle()

    assert states(life) == {"base": "Running", "other": "Succeeded", "rain": "Pending", "storm": "Pending"}


def test_a_source_without_missing_work_does_not_block() -> None:
    base, _ = spec_data("base", "other")["stages"]
    life = a_life(stages=[base, img2img("rain", "base")])

    life.until_drawing(a_plan("base", total=8, reused=8, shards=0), a_plan("rain", total=8, shards=2))

    assert states(life) == {"base": "Succeeded", "rain": "Running"}
