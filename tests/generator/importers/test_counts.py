"""An import has as many samples as DiffuGen draws; if not, a comment in the manifest gives the reason."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from diffugen_api.plan import Expansion
from diffugen_api.v1alpha1 import LabeledDataset
from tests.generator.importers.configs import (
    SUPERVISED,
    TAUGHT,
    UNSUPERVISED,
    changed,
    comments_of,
    imported,
)


def samples(manifest: str) -> dict[str, int]:
    spec = LabeledDataset.model_validate(yaml.safe_load(manifest)).spec
    return {stage.name: Expansion(spec).count_distinct_samples(stage.name) for stage in spec.stages}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param(SUPERVISED, {"base": 480, "img2img": 1920, "inpaint": 1344}, id="all three programs"),
        pytest.param(TAUGHT, {"base": 288}, id="a variable that no prompt names multiplies the draws"),
        pytest.param(UNSUPERVISED, {"base": 12}, id="seeds for each prompt"),
    ],
)
def test_the_stages_have_as_many_samples_as_diffugen_draws(
    tmp_path: Path, config: dict[str, Any], expected: dict[str, int]
) -> None:
    assert samples(imported(tmp_path, config)) == expected


def test_a_comment_names_the_substring_test_of_img2img_and_both_counts(tmp_path: Path) -> None:
    said = comments_of(imported(tmp_path, SUPERVISED))

    assert "img2img 1,920 1,440 DiffuGen leaves out" in " ".join(said.split())


def test_values_that_are_part_of_the_sources_are_counted_as_diffugen_does(tmp_path: Path) -> None:
    """`sun` is part of `sunny`, so DiffuGen draws no image for a third of the sources."""
    config = changed(TAUGHT, {"img2img": {**SUPERVISED["img2img"], "source_dataset": "drawn/collisions/txt2img"}})
    config = changed(config, {"img2img.weather_conditions": ["sun"], "img2img.times_of_day": ["late"]})

    said = " ".join(comments_of(imported(tmp_path, config)).split())

    assert "base 288 288 img2img 288 192 DiffuGen leaves out" in said


def test_images_that_diffugen_draws_twice_are_drawn_once(tmp_path: Path) -> None:
    config = changed(TAUGHT, {"img2img": {**SUPERVISED["img2img"], "source_dataset": "drawn/collisions/txt2img"}})
    config = changed(config, {"img2img.sky_conditions": ["white", "black"], "img2img.times_of_day": ["late"]})

    said = " ".join(comments_of(imported(tmp_path, config)).split())

    # DiffuGen leaves `misty` out for the misty sources, and draws each other value twice, once per sky
    assert "img2img 1,152 2,112 no prompt names {sky_condition}: DiffuGen draws the same image 2 times" in said


def test_prompts_that_leave_out_different_variables_are_drawn_as_often_as_the_first(tmp_path: Path) -> None:
    prompts = ["a {object_name} by {time_of_day}", "a {object_name} in {weather_condition}"]
    manifest = imported(tmp_path, changed(SUPERVISED, {"txt2img.prompts": prompts, "img2img": ..., "inpaint": ...}))

    # 5 objects at 4 times, or in 2 weathers; no prompt names the 2 views, the 2 skies, and the 2 weathers or 4 times
    assert samples(manifest) == {"base": (5 * 4 + 5 * 2) * 2 * 2 * 4}
    assert "in the order of the templates: 8, 16 times" in comments_of(manifest)


def test_inpaint_can_draw_from_img2img_and_img2img_from_inpaint(tmp_path: Path) -> None:
    from_images = changed(SUPERVISED, {"inpaint.source_dataset": "drawn/boats/img2img"})
    from_inpainted = changed(SUPERVISED, {"img2img.source_dataset": "./drawn/boats/inpaint/"})

    assert samples(imported(tmp_path, from_images)) == {"base": 480, "img2img": 1920, "inpaint": 14 * 96 * 4}
    assert samples(imported(tmp_path, from_inpainted)) == {"base": 480, "img2img": 1344 * 4, "inpaint": 1344}
