"""Which settings each scheduler of diffusers can use. Needs no torch.

A test compares these rules with the schedulers themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from diffugen_generator.families.folder import whole_number

CONFIG: Final = "scheduler_config.json"

_DDPM: Final = frozenset({"DDPMParallelScheduler", "DDPMScheduler"})
_EDM: Final = frozenset({"EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"})
"""Schedulers without betas: they have noise levels of their own."""
_TIMESTEPS: Final = frozenset(
    {"DDIMParallelScheduler", "DDIMScheduler", "EulerAncestralDiscreteScheduler", "PNDMScheduler"}
)
"""Further schedulers that do not choose noise levels."""
_DPM: Final = frozenset({"DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"})
_ORDERED: Final = _DPM | {"DEISMultistepScheduler", "EDMDPMSolverMultistepScheduler", "UniPCMultistepScheduler"}
"""Schedulers that read `solver_order` and `solver_type`."""
_FINAL_SIGMAS: Final = _DPM | _EDM | {"EulerDiscreteScheduler", "UniPCMultistepScheduler"}
_FLOW: Final = _DPM | {"DEISMultistepScheduler", "SASolverScheduler", "UniPCMultistepScheduler"}
"""Schedulers that know flow matching."""

_PREDICTIONS: Final = ("epsilon", "v_prediction", "sample")
_BETAS: Final = ("linear", "scaled_linear", "squaredcos_cap_v2")
_SPACINGS: Final = ("leading", "linspace", "trailing")
_UNSPACED: Final = _EDM | {"DPMSolverSinglestepScheduler", "LCMScheduler", "TCDScheduler"}
"""Schedulers that do not read `timestep_spacing`."""
_ALGORITHMS: Final[Mapping[str, tuple[str, ...]]] = {
    "DEISMultistepScheduler": ("deis", "dpmsolver", "dpmsolver++"),
    "DPMSolverMultistepScheduler": ("deis", "dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"),
    "DPMSolverSinglestepScheduler": ("deis", "dpmsolver", "dpmsolver++", "sde-dpmsolver++"),
    "EDMDPMSolverMultistepScheduler": ("deis", "dpmsolver++", "sde-dpmsolver++"),
    "SASolverScheduler": ("data_prediction", "noise_prediction"),
}
_FINAL_ZERO: Final = ("dpmsolver++", "sde-dpmsolver++")
"""Values of `algorithm_type` that can end at a noise level of 0."""
_VARIANCES: Final = ("learned", "learned_range", "fixed_large_log")
"""Values of `variance_type` that need a network of two outputs, or give numbers that are not finite."""
DISTILLED: Final = frozenset({"LCMScheduler", "TCDScheduler"})
"""Schedulers that use some of the steps to which a model was distilled: 50 steps if its settings have no number."""
_SIGMAS: Final = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
"""Settings that choose the noise levels; a scheduler that reads them uses one of them at most."""
_SOLVERS: Final = ("bh1", "bh2", "heun", "logrho", "midpoint")


@dataclass(frozen=True, slots=True)
class _Rule:
    """The values of one setting that a scheduler can use."""

    name: str
    fits: Callable[[Any], bool]
    allowed: str
    """The values in words."""


def check_settings(kind: str, settings: Mapping[str, Any]) -> None:
    """Raise `ValueError` if the scheduler `kind` cannot use its settings; the error's text is a clause about the model.

    `settings` are those of the file, with the changes of a named sampler. A setting that is absent has the default of
    diffusers, which fits.
    """
    for rule in _rules(kind, settings):
        if rule.name in settings and not rule.fits(value := settings[rule.name]):
            said = repr(value)
            said = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"
            raise ValueError(
                f"has {rule.name} {said} in scheduler/{CONFIG}, where {kind} needs {rule.allowed}: fix it, or save the "
                "model again."
            )


_SHOWN: Final = 40
"""Characters of a value that a message shows."""


def _rules(kind: str, settings: Mapping[str, Any]) -> list[_Rule]:
    """Return the rules for a scheduler with these settings."""
    rules = [_choice("prediction_type", (*_PREDICTIONS, *(("flow_prediction",) if kind in _FLOW else ())))]
    rules.append(_Rule("steps_offset", lambda value: _is_whole(value, least=None), "a whole number"))
    if kind not in _EDM:
        rules += _beta_rules(kind, settings)
    if kind not in _UNSPACED:
        rules.append(_choice("timestep_spacing", _SPACINGS))
    if kind in _DDPM:
        rules.append(_Rule("variance_type", lambda value: value not in _VARIANCES, "fixed_small or fixed_large"))
    if kind in DISTILLED:
        trained = whole_number(settings, "num_train_timesteps", f"scheduler/{CONFIG}", 1000)
        distilled = whole_number(settings, "original_inference_steps", f"scheduler/{CONFIG}", 50)
        rules.append(_Rule("num_train_timesteps", lambda _: distilled <= trained, f"{distilled} or more"))
    if kind == "EulerDiscreteScheduler":
        rules.append(_choice("interpolation_type", ("linear", "log_linear")))
    if kind in _FINAL_SIGMAS:
        rules.append(_choice("final_sigmas_type", ("sigma_min", "zero")))
    chosen = [name for name in _SIGMAS if settings.get(name)]
    if len(chosen) > 1 and kind not in _DDPM | _EDM | DISTILLED | _TIMESTEPS:
        rules.append(_Rule(chosen[-1], lambda value: not value, f"false beside {chosen[0]}"))
    ends_at_zero = settings.get("final_sigmas_type", "zero") == "zero"
    if kind in _ALGORITHMS:
        to_zero = kind in _FINAL_SIGMAS and ends_at_zero
        rules.append(_choice("algorithm_type", _FINAL_ZERO if to_zero else _ALGORITHMS[kind]))
    if kind in _ORDERED:
        infinite = kind == "UniPCMultistepScheduler" and ends_at_zero
        rules.append(_choice("solver_type", _SOLVERS[1:] if infinite else _SOLVERS))
        if infinite:
            rules.append(_Rule("predict_x0", bool, "true"))
        most = 3 if kind == "DPMSolverSinglestepScheduler" else None
        allowed = "a whole number from 1 to 3" if most else "a whole number of 1 or more"
        rules.append(_Rule("solver_order", lambda value: _is_whole(value, most=most), allowed))
    return rules


def _beta_rules(kind: str, settings: Mapping[str, Any]) -> list[_Rule]:
    """Return the rules for the noise that each training step adds: betas in 0..1."""
    trained = whole_number(settings, "num_train_timesteps", f"scheduler/{CONFIG}", 1000)
    if settings.get("trained_betas") is not None:  # they replace the schedule
        allowed = f"{trained} numbers between 0 and 1, or null"
        return [_Rule("trained_betas", lambda value: _are_betas(value, trained), allowed)]
    more = ("laplace", "sigmoid") if kind in _DDPM else ("exp",) if kind == "HeunDiscreteScheduler" else ()
    return [
        _choice("beta_schedule", (*_BETAS, *more)),
        _Rule("beta_start", lambda value: _is_beta(value) and value > 0, "a number between 0 and 1"),
        _Rule("beta_end", _is_beta, "a number of 0 or more, and below 1"),
    ]


def _choice(name: str, values: tuple[str, ...]) -> _Rule:
    return _Rule(name, lambda value: value in values, f"one of {', '.join(values)}")


def _is_whole(value: object, *, least: int | None = 1, most: int | None = None) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return (least is None or value >= least) and (most is None or value <= most)


def _is_beta(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _are_betas(value: object, count: int) -> bool:
    return isinstance(value, list) and len(value) >= count and all(_is_beta(each) and each > 0 for each in value)
