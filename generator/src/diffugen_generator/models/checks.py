"""Checks of a model against the stage that draws with it."""

from __future__ import annotations

from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import Drawing
from diffugen_api.v1alpha1.kinds.base import DrawingFromImages
from diffugen_generator.failures import first_line
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.registry import family_of


def check_kind(model: ModelFolder, task: Drawing, field: str) -> None:
    """Raise `SpecError` if a stage that does not inpaint uses a model made for inpainting."""
    if not task.inpaints and made_for_inpainting(model):
        raise SpecError(
            "UnsupportedModel",
            f"{field}: {model.uri!r} is made for inpainting and cannot do {task.kind}; name one that is not, or use it "
            "in an inpaint stage.",
        )


def check_sampler(model: ModelFolder, task: Drawing, *, field: str, stage: str) -> None:
    """Raise `SpecError` if a stage cannot draw with its sampler, steps and strength.

    Args:
        model: the model of the stage.
        task: what the stage draws.
        field: the manifest's field that names the model.
        stage: the manifest's field with the stage's kind, such as `spec.stages[0].txt2img`.
    """
    family = family_of(model.pipeline)
    family.check_sampler(model, task.scheduler, task.steps, field=field, stage=stage, strength=_strength_of(task))


def run_sampler(model: ModelFolder, task: Drawing, *, stage: str) -> None:
    """Run the sampler of a stage over its steps, without the network; raise `SpecError` if it fails. Imports torch.

    The arguments are those of `check_sampler`, whose rules need no torch.
    """
    strength = _strength_of(task)
    try:
        family_of(model.pipeline).run_sampler(model, task.scheduler, task.steps, strength=strength)
    except ValueError as error:
        raise SpecError(
            "UnsupportedSteps",
            f"{stage}.steps: the scheduler of {model.uri!r} cannot draw in {task.steps} steps at strength "
            f"{strength:g}: {first_line(error)}; give the stage another number of steps, or another scheduler.",
        ) from error


def _strength_of(task: Drawing) -> float:
    """Return the part of the steps that a stage runs, in 0..1."""
    return task.strength if isinstance(task, DrawingFromImages) else 1


def made_for_inpainting(model: ModelFolder) -> bool:
    """Return whether the model's network takes a mask and the masked image as extra input."""
    return family_of(model.pipeline).takes_a_mask(model.path)
