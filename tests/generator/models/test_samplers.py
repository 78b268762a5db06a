"""Samplers: the plan, which loads nothing, accepts exactly the numbers of steps that the samplers accept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from diffusers import SchedulerMixin

from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import Scheduler
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.samplers import NAMED, OWN, check_sampler
from diffugen_generator.families.unet.schedulers import open_scheduler
from diffugen_generator.models.resolve import resolve

STEPS = (1, 2, 3, 4, 25, 50, 51, 1000)


def with_sampler(folder: Path, **settings: Any) -> ModelFolder:
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    return resolve(str(folder))


def planned(model: ModelFolder, name: str | None) -> list[int]:
    """Return which of `STEPS` the plan accepts."""
    found = []
    for steps in STEPS:
        try:
            check_sampler(model, name, steps, field="spec.stages[0].txt2img.model", stage="spec.stages[2].img2img")
        except SpecError:
            continue
        found.append(steps)
    return found


def taken(model: ModelFolder, name: str | None) -> list[int]:
    """Return which of `STEPS` diffusers accepts."""
    found = []
    for steps in STEPS:
        try:
            open_scheduler(model.path / "scheduler", name).set_timesteps(steps)
        except ValueError:
            continue
        found.append(steps)
    return found


def test_every_name_of_the_manifest_is_a_sampler() -> None:
    assert set(NAMED) == set(get_args(Scheduler))


@pytest.mark.parametrize("name", get_args(Scheduler))
def test_the_plan_accepts_the_steps_that_a_named_sampler_accepts(tiny_model: ModelFolder, name: str) -> None:
    assert planned(tiny_model, name) == taken(tiny_model, name)


@pytest.mark.parametrize("kind", sorted(OWN))
def test_the_plan_accepts_the_steps_that_a_models_own_sampler_accepts(own_model: Path, kind: str) -> None:
    model = with_sampler(own_model, _class_name=kind)

    assert issubclass(type(open_scheduler(model.path / "scheduler")), SchedulerMixin)
    assert planned(model, None) == taken(model, None)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"_class_name": "PNDMScheduler"}, [4, 25, 50, 51, 1000]),
        ({"_class_name": "PNDMScheduler", "skip_prk_steps": True}, [*STEPS]),
        ({"_class_name": "LCMScheduler"}, [1, 2, 3, 4, 25, 50]),
        ({"_class_name": "LCMScheduler", "original_inference_steps": 4}, [1, 2, 3, 4]),
        ({"_class_name": "DDIMScheduler", "num_train_timesteps": 50}, [1, 2, 3, 4, 25, 50]),
    ],
)
def test_a_models_settings_limit_the_number_of_steps(
    own_model: Path, settings: dict[str, Any], steps: list[int]
) -> None:
    model = with_sampler(own_model, **settings)

    assert planned(model, None) == taken(model, None) == steps


def test_the_error_names_the_field_of_the_stage(tiny_model: ModelFolder) -> None:
    with pytest.raises(SpecError, match=r"^spec\.stages\[2\]\.img2img\.steps: 60 is .* at most 50; give it") as caught:
        check_sampler(tiny_model, "lcm", 60, field="spec.stages[0].txt2img.model", stage="spec.stages[2].img2img")

    assert caught.value.reason == "UnsupportedSteps"


def test_a_setting_that_is_not_a_number_is_named_with_its_file(own_model: Path) -> None:
    model = with_sampler(own_model, _class_name="LCMScheduler", original_inference_steps="fifty")

    with pytest.raises(SpecError, match=r"^m: .* original_inference_steps 'fifty' in scheduler/scheduler_config.json"):
        check_sampler(model, None, 4, field="m", stage="s")


def test_a_setting_that_the_sampler_cannot_use_is_named_with_what_it_needs(own_model: Path) -> None:
    model = with_sampler(own_model, _class_name="DDIMScheduler", trained_betas=[0.1, 0.2])

    with pytest.raises(SpecError) as caught:
        check_sampler(model, None, 4, field="spec.stages[0].txt2img.model", stage="spec.stages[0].txt2img")

    assert caught.value.reason == "UnsupportedModel"
    assert str(caught.value) == (
        f"spec.stages[0].txt2img.model: '{model.uri}' has trained_betas [0.1, 0.2] in scheduler/scheduler_config.json, "
        "where DDIMScheduler needs 1000 numbers between 0 and 1, or null: fix it, or save the model again."
    )
