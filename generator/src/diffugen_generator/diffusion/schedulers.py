"""Schedulers: the model's own, or another one by name over the same noise schedule.

A name means the same sampler for every model: what the folder says about its own sampler (Karras sigmas, an order)
is overruled, what it says about the model (betas, prediction type, spacing of the steps) is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import diffusers
from diffusers import SchedulerMixin

from diffugen_generator.models import settings_of

_CONFIG: Final = "scheduler_config.json"

_UNSEEDED: Final = frozenset({"DPMSolverSDEScheduler"})
"""Schedulers that draw noise for a batch as a whole, so that a picture would depend on its neighbours."""

# Latents are not pictures: they are never clipped to -1..1, though diffusers' defaults for some would.
_UNCLIPPED: Final = {"clip_sample": False}
_PLAIN: Final = {"use_karras_sigmas": False}
_MULTISTEP: Final = {"solver_order": 2, "lower_order_final": True, **_PLAIN}

_NAMED: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
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
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),  # as in Stable Diffusion's own
    "unipc": ("UniPCMultistepScheduler", _MULTISTEP),
}


def open_scheduler(folder: Path, name: str | None = None) -> Any:
    """Return the scheduler `name`, or the folder's own; raise `ValueError` where it cannot be used.

    What comes back is a diffusers scheduler; diffusers ships no types, so to mypy its classes are nothing.
    """
    own = str(settings_of(folder / _CONFIG).get("_class_name"))
    if name is None:
        return _class(own).from_pretrained(folder, local_files_only=True)
    class_name, settings = _NAMED[name]
    return _class(class_name).from_config(settings_of(folder / _CONFIG), **settings)


def _class(name: str) -> Any:
    if name in _UNSEEDED:
        raise ValueError(f"its scheduler {name} draws noise that no seed of a picture decides.")
    kind: Any = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise ValueError(f"diffusers has no scheduler {name!r}.")  # noqa: TRY004 - the folder's value, not ours
    return kind
