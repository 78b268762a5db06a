"""The supported samplers, by name and as a model's own, and the numbers of steps of each. Needs no torch.

A name means the same sampler for every model. The folder's settings of its own sampler (Karras sigmas, an order) are
overridden. The folder's settings of the model (betas, prediction type, spacing of the steps) are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from diffugen_api.plan import SpecError
from diffugen_generator.families.folder import ModelFolder, settings_of, whole_number
from diffugen_generator.families.unet.scheduler_settings import CONFIG, DISTILLED, check_settings

UNSEEDED: Final = frozenset({"DPMSolverSDEScheduler"})
"""Schedulers that draw noise for a whole batch, so that an image would depend on the other images."""

# Latents are not images: they are never clipped to -1..1, although some defaults of diffusers do it.
_UNCLIPPED: Final = {"clip_sample": False}
_PLAIN: Final = {"use_karras_sigmas": False}
_MULTISTEP: Final = {"solver_order": 2, "lower_order_final": True, **_PLAIN}

NAMED: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "ddim": ("DDIMScheduler", _UNCLIPPED),
    "ddpm": ("DDPMScheduler", _UNCLIPPED),
    "deis": ("DEISMultistepScheduler", {"algorithm_type": "deis", **_MULTISTEP}),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", **_MULTISTEP}),
    "dpmsolver++_karras": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", **_MULTISTEP, "use_karras_sigmas": True},
    ),
    "dpmsolver++_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", **_MULTISTEP}),
    "euler": ("EulerDiscreteScheduler", _PLAIN),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", _PLAIN),
    "lcm": ("LCMScheduler", _UNCLIPPED),
    "lms": ("LMSDiscreteScheduler", _PLAIN),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),  # as in Stable Diffusion's own settings
    "unipc": ("UniPCMultistepScheduler", _MULTISTEP),
}
"""Values of `scheduler` in a stage: the class of diffusers, and the settings that make it this sampler."""

OWN: Final = frozenset(kind for kind, _ in NAMED.values()) | {
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "DPMSolverSinglestepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "SASolverScheduler",
    "TCDScheduler",
}
"""Classes that a model's own settings may name: those of diffusers that can draw latents of Stable Diffusion."""

_COUNTED: Final = DISTILLED | {"DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler"}
"""Schedulers that refuse more steps than the model has training steps."""
_BY_TIMESTEP: Final = frozenset(
    {
        "DDIMParallelScheduler",
        "DDIMScheduler",
        "DDPMParallelScheduler",
        "DDPMScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
    }
)
"""Schedulers that look up the noise of a timestep in a table of the training steps, or divide by differences of it."""
_MULTISTEP_KINDS: Final = frozenset(
    {
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
        "SASolverScheduler",
        "UniPCMultistepScheduler",
    }
)
"""Schedulers that need one more distinct timestep than there are steps."""
_NO_SAMPLE: Final = frozenset(
    {
        "EDMDPMSolverMultistepScheduler",
        "EDMEulerScheduler",
        "EulerAncestralDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "PNDMScheduler",
    }
)
"""Schedulers that cannot use a network that predicts the image itself."""
_OWN_SIGMAS: Final = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
"""Settings by which a scheduler chooses noise levels, and not timesteps."""
_UNBOUNDED: Final = 1_000_000


def check_sampler(
    model: ModelFolder, name: str | None, steps: int, *, field: str, stage: str, strength: float = 1
) -> None:
    """Raise `SpecError` if a stage cannot draw with its sampler, or not with this number of steps.

    Args:
        model: the model of the stage.
        name: a key of `NAMED`; if absent, the model's own sampler.
        steps: the number of steps of the stage.
        field: the manifest's field that names the model.
        stage: the manifest's field with the stage's kind, such as `spec.stages[0].txt2img`.
        strength: the part of the steps that runs; below 1, the first timestep is not among them.
    """
    try:
        kind, settings = _sampler_of(model.path / "scheduler", name)
        able = _steps_of(kind, settings)
    except ValueError as error:
        raise SpecError("UnsupportedModel", f"{field}: {model.uri!r} {error}") from None
    if kind not in OWN:
        why = "draws noise that no seed of an image decides" if kind in UNSEEDED else "is none to draw with"
        raise SpecError(
            "UnsupportedModel",
            f"{field}: {model.uri!r} has a scheduler {kind!r} in scheduler/{CONFIG}, which {why}; "
            f"name one in {stage}.scheduler, such as ddim, or another model.",
        )
    try:
        check_settings(kind, settings)
    except ValueError as error:
        raise SpecError("UnsupportedModel", f"{field}: {model.uri!r} {error}") from None
    if (predicts := settings.get("prediction_type", "epsilon")) == "sample" and kind in _NO_SAMPLE:
        raise SpecError(
            "UnsupportedModel",
            f"{field}: {model.uri!r} predicts {predicts!r}, which {kind} cannot draw with; name another in "
            f"{stage}.scheduler, such as ddim.",
        )
    if strength == 1 and _divides_by_no_signal(kind, settings, steps):
        raise SpecError(
            "UnsupportedModel",
            f"{field}: {model.uri!r} predicts noise, and at its last timestep nothing but noise is left, so {kind} "
            f"would divide by 0; name another in {stage}.scheduler, such as euler.",
        )
    if steps in able and _overflows(kind, settings, steps):
        raise SpecError(
            "UnsupportedSteps",
            f"{stage}.steps: {steps} steps of {kind} with the noise levels of {model.uri!r} give numbers that are not "
            f"finite; give it more than {_OVERFLOWING_STEPS}, or name another in {stage}.scheduler.",
        )
    if steps in able and not _are_apart(kind, settings, steps):
        raise SpecError(
            "UnsupportedSteps",
            f"{stage}.steps: {kind} cannot draw in {steps} steps with the spacing of the timesteps in "
            f"scheduler/{CONFIG} of {model.uri!r}; give it fewer, or name another in {stage}.scheduler.",
        )
    if steps not in able:
        bound = f"at most {able[-1]}" if steps > able[-1] else f"at least {able[0]}"
        raise SpecError(
            "UnsupportedSteps",
            f"{stage}.steps: {steps} is not what {kind} can draw in with {model.uri!r}, which is {bound}; "
            f"give it as many, or name another in {stage}.scheduler.",
        )


def _whole_or_zero(value: object) -> int:
    """Return a setting that is a whole number, or 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _divides_by_no_signal(kind: str, settings: Mapping[str, Any], steps: int) -> bool:
    """Return whether sampling starts at a timestep without signal, from which the image is divided by the signal.

    `rescale_betas_zero_snr` makes the last timestep such a one (Lin et al. 2023, section 3.1).
    """
    noise = settings.get("prediction_type", "epsilon") == "epsilon"
    if kind not in _COUNTED or not noise or not settings.get("rescale_betas_zero_snr", False):
        return False
    if kind in DISTILLED:
        return not settings.get("clip_sample", False)
    if settings.get("clip_sample", True):  # what is infinite is clipped
        return False
    trained = whole_number(settings, "num_train_timesteps", f"scheduler/{CONFIG}", 1000)
    spacing = settings.get("timestep_spacing", "leading")
    if spacing == "leading":
        first = (steps - 1) * (trained // steps) + _whole_or_zero(settings.get("steps_offset", 0))
        return steps <= trained and first == trained - 1
    return spacing != "linspace" or steps > 1


_OVERFLOWING_STEPS: Final = 10


def _overflows(kind: str, settings: Mapping[str, Any], steps: int) -> bool:
    """Return whether the steps between the great noise levels of a cosine schedule may give infinite numbers."""
    steep = settings.get("beta_schedule") == "squaredcos_cap_v2" and settings.get("timestep_spacing") != "leading"
    return kind == "KDPM2AncestralDiscreteScheduler" and steep and 1 < steps <= _OVERFLOWING_STEPS


def _are_apart(kind: str, settings: Mapping[str, Any], steps: int) -> bool:
    """Return whether the timesteps of a scheduler are different and within the training steps.

    They follow Table 2 of Lin et al. 2023 (https://arxiv.org/abs/2305.08891), as in diffusers.
    """
    trained = whole_number(settings, "num_train_timesteps", f"scheduler/{CONFIG}", 1000)
    spacing = settings.get("timestep_spacing", _SPACINGS.get(kind, "linspace"))
    offset = _whole_or_zero(settings.get("steps_offset", 0))
    if kind in _BY_TIMESTEP and spacing == "leading":
        return (steps - 1) * (trained // steps) + offset < trained
    if kind in _MULTISTEP_KINDS and not any(settings.get(each) for each in _OWN_SIGMAS):
        if spacing == "leading":
            return steps < trained and steps * (trained // (steps + 1)) + offset < trained
        return spacing != "linspace" or steps < trained
    return True


_SPACINGS: Final[Mapping[str, str]] = {
    "DDIMParallelScheduler": "leading",
    "DDIMScheduler": "leading",
    "DDPMParallelScheduler": "leading",
    "DDPMScheduler": "leading",
    "PNDMScheduler": "leading",
}
"""The defaults of diffusers for `timestep_spacing`; those of other schedulers are `linspace` or need no check."""


def _sampler_of(folder: Path, name: str | None) -> tuple[str, Mapping[str, Any]]:
    """Return the class of the sampler `name`, or of the folder's own, and its settings."""
    settings = settings_of(folder / CONFIG)
    if name is None:
        return str(settings.get("_class_name")), settings
    kind, changes = NAMED[name]
    return kind, {**settings, **changes}


def _steps_of(kind: str, settings: Mapping[str, Any]) -> range:
    """Return the numbers of steps that a scheduler supports."""
    file = f"scheduler/{CONFIG}"
    most = _UNBOUNDED
    if kind in _COUNTED:
        most = whole_number(settings, "num_train_timesteps", file, 1000)
    if kind in DISTILLED:
        most = min(most, whole_number(settings, "original_inference_steps", file, 50))
    # The Runge-Kutta steps of PNDM need four points at the start.
    least = 4 if kind == "PNDMScheduler" and not settings.get("skip_prk_steps", False) else 1
    return range(least, most + 1)
