"""The output of `kubectl labeleddataset status`."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from diffugen_generator.kubectl_plugin.progress_table import dataset_view, datasets_table, duration, state_of
from tests.operator.lives import a_life, a_plan


def shown(what: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_dataset_shows_each_stage_and_its_conditions() -> None:
    life = a_life("base", "more").until_drawing(a_plan("base", total=24), a_plan("more", total=8, reused=8, shards=0))
    life.pod_runs("base", "0", total=8, done=6).settle()

    lines = shown(dataset_view(life.raw)).splitlines()
    assert lines[0].split() == ["shapes", "Running"]
    assert lines[2].split()[:3] == ["base", "txt2img", "Running"]
    assert "6/24" in lines[2]
    assert lines[3].split()[:3] == ["more", "txt2img", "Succeeded"]
    assert "8/8" in lines[3]
    assert lines[4].startswith("Drawing: ")


def test_rate_and_time_left_are_those_of_the_status() -> None:
    life = a_life().until_drawing()
    life.pace, life.paces = 2.0, {"base": 2.0}
    life.pod_runs("base", "0", total=8, done=4).settle()

    assert "2.0/s" in shown(dataset_view(life.raw))
    assert "10s" in shown(datasets_table([life.raw]))


def test_the_list_has_a_line_for_each_dataset() -> None:
    lines = shown(datasets_table([a_life().raw, a_life().until_published().raw, a_life(output={}).settle().raw]))

    assert [line.split()[1] for line in lines.splitlines()[1:]] == ["Pending", "Succeeded", "Failed"]
    assert "24/24" in lines
    assert "StoreNotSet" in lines


def test_a_published_dataset_shows_its_location() -> None:
    assert "24 samples, 30 objects at s3://pictures/vision/shapes" in shown(
        dataset_view(a_life().until_published().raw)
    )


def test_the_state_of_an_edit_that_the_operator_has_not_observed_is_pending() -> None:
    assert state_of(a_life().until_published().edit(seed=7).raw) == "Pending"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0, "0s"), (59, "59s"), (61, "1m 1s"), (3_720, "1h 2m"), (86_400 * 2 + 3_600, "2d 1h")],
)
def test_times_have_their_two_largest_units(seconds: int | None, text: str) -> None:
    assert duration(seconds) == text
