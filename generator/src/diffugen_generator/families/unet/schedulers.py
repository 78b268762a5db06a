"""Schedulers: the model's own, or another one by name with the same noise schedule.

Some schedulers fail in the middle of their steps, for example with as many steps as the model was trained with. So the
steps are run once without a network, on one number, before anything is drawn.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDPMScheduler, SchedulerMixin

from diffugen_api.plan import SpecError
from diffugen_generator.failures import first_line
from diffugen_generator.families.folder import settings_of
from diffugen_generator.families.model import first_index
from diffugen_generator.families.unet.samplers import NAMED, UNSEEDED
from diffugen_generator.families.unet.scheduler_settings import CONFIG


def open_scheduler(folder: Path, name: str | None = None) -> Any:
    """Return the scheduler `name`, or the folder's own; raise `ValueError` if it cannot be used.

    The result is a diffusers scheduler. Its type is `Any`, because diffusers has no types for mypy.
    """
    own = settings_of(folder / CONFIG)
    try:
        if name is None:
            return _class(str(own.get("_class_name"))).from_pretrained(folder, local_files_only=True)
        kind, settings = NAMED[name]
        return _class(kind).from_config(own, **settings)
    except _FAILURES as error:
        raise ValueError(f"its settings in scheduler/{CONFIG} do not work: {first_line(error)}") from error


class DiffusersSampler:
    """A scheduler of diffusers that removes noise from latents (DDPM and the methods based on it)."""

    def __init__(self, scheduler: Any, device: torch.device) -> None:
        """Use `scheduler`; its tables are on `device`."""
        self._scheduler = scheduler
        self._device = device
        self._ancestral = "generator" in inspect.signature(scheduler.step).parameters
        """Whether a step may add noise."""
        self._tried: set[tuple[int, int]] = set()
        self._steps = 0

    @property
    def name(self) -> str:
        """The scheduler's class."""
        return type(self._scheduler).__name__

    @property
    def timesteps(self) -> torch.Tensor:
        """The timesteps of the steps that were set, in order."""
        timesteps: torch.Tensor = self._scheduler.timesteps
        return timesteps

    @property
    def order(self) -> int:
        """The number of timesteps of one step: 2 for Heun's method."""
        return int(getattr(self._scheduler, "order", 1))

    def set_steps(self, steps: int, size: tuple[int, int]) -> None:
        """Set the steps; raise `ValueError` if they are not possible."""
        _set_steps(self._scheduler, steps, self._device)
        self._steps = steps

    def begin_at(self, index: int) -> None:
        """Let sampling start at timestep number `index`; raise `ValueError` if the steps cannot be run from there."""
        if (self._steps, index) not in self._tried:
            try_out(self._scheduler, self._steps, index)
            self._tried.add((self._steps, index))
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(index)

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        """Return standard normal noise [b, c, h, w], scaled for the first step."""
        scaled: torch.Tensor = noise * self._scheduler.init_noise_sigma
        return scaled

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return latents [b, c, h, w] with the noise of timestep `t`."""
        noised: torch.Tensor = self._scheduler.add_noise(latents, noise, t.expand(len(noise)))
        return noised

    def scaled(self, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return latents [n, c, h, w], scaled for the network at `t`."""
        scaled: torch.Tensor = self._scheduler.scale_model_input(latents, t)
        return scaled

    def step(
        self, predicted: torch.Tensor, t: torch.Tensor, latents: torch.Tensor, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        """Return latents [b, c, h, w] after one step; ancestral schedulers add noise from the generators."""
        extra = {"generator": list(generators)} if self._ancestral else {}
        stepped: torch.Tensor = self._scheduler.step(predicted, t, latents, **extra, return_dict=False)[0]
        return stepped


def run_steps(folder: Path, name: str | None, steps: int, strength: float = 1) -> None:
    """Run all steps of the scheduler `name`, or of the folder's own, on one number; raise `ValueError` if they fail.

    `strength`, in 0..1, is the part of the steps that runs, from a noised image if it is below 1.
    """
    scheduler = open_scheduler(folder, name)
    _set_steps(scheduler, steps, "cpu")
    try_out(scheduler, steps, first_index(steps, strength, DiffusersSampler(scheduler, torch.device("cpu")).order))


def try_out(scheduler: Any, steps: int, begin: int) -> None:
    """Run the steps of a copy of `scheduler` on one number, without a network; raise `ValueError` if they fail.

    `begin` is the number of the first timestep that is run; above 0, sampling starts from a noised image.
    """
    own = copy.deepcopy(scheduler)
    _set_steps(own, steps, "cpu")
    sampler = DiffusersSampler(own, torch.device("cpu"))
    if hasattr(own, "set_begin_index"):
        own.set_begin_index(begin)
    noise, generators = torch.ones(1, 1, 1, 1), [torch.Generator("cpu").manual_seed(0)]
    timesteps = sampler.timesteps[begin:]
    try:
        latents = sampler.start(noise) if begin == 0 else sampler.noised(noise, noise, timesteps[0])
        for t in timesteps:
            latents = sampler.step(sampler.scaled(latents, t) * _PREDICTED, t, latents, generators)
    except _FAILURES as error:
        raise ValueError(f"its steps fail: {first_line(error)}") from error
    if not bool(torch.isfinite(latents).all()):
        raise ValueError("its steps give numbers that are not finite")


def _set_steps(scheduler: Any, steps: int, device: torch.device | str) -> None:
    """Set the steps of a scheduler; raise `ValueError` if they are not possible."""
    try:
        scheduler.set_timesteps(steps, device=device)
    except _FAILURES as error:
        raise ValueError(f"its steps cannot be set: {first_line(error)}") from error


_FAILURES = (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, UnboundLocalError)
"""What schedulers raise, besides `ValueError`, for settings and steps that do not go together."""
_PREDICTED = 0.5
"""What the network predicts when steps are tried out, as a fraction of its input."""


def forward_process(scheduler: Any) -> Any:
    """Return the forward process of a model as a `DDPMScheduler`; it is the same for all schedulers of the model."""
    return DDPMScheduler.from_config(scheduler.config)  # type: ignore[no-untyped-call]  # diffusers has no types


def prediction_target(forward: Any, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Return the correct prediction [b, c, h, w] for latents with the noise of `times` [b].

    `forward` is the result of `forward_process`. Raises `SpecError` if its `prediction_type` is unknown.
    """
    kind = forward.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        velocity: torch.Tensor = forward.get_velocity(latents, noise, times)
        return velocity
    if kind == "sample":
        return latents
    raise SpecError("UnsupportedModel", f"minPresence cannot be checked with a model that predicts {kind!r}.")


def _class(name: str) -> Any:
    if name in UNSEEDED:
        raise ValueError(f"its scheduler {name} draws noise that no seed of an image decides.")
    kind: Any = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise ValueError(f"diffusers has no scheduler {name!r}.")  # noqa: TRY004 - the folder's value
    return kind
