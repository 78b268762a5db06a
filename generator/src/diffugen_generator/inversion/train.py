"""A whole training: load the model, resume or begin, train, and return the files. The caller stores checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Final, Protocol

import torch

from diffugen_generator.failures import Interrupted
from diffugen_generator.families.model import DiffusionModel
from diffugen_generator.families.registry import family_of
from diffugen_generator.inversion.artifacts import artifacts, sample_grid
from diffugen_generator.inversion.checkpoints import dumps, loads
from diffugen_generator.inversion.images import TrainingImage
from diffugen_generator.inversion.presence import ImageSimilarity
from diffugen_generator.inversion.settings import TrainingSettings
from diffugen_generator.inversion.training import Training, TrainingState

_SAVE_EVERY: Final = 30.0
"""Seconds after which a checkpoint is saved; one is also saved at each evaluation."""
_PREVIEW_EVERY: Final = 300.0
"""Seconds between two previews, at least: drawing one takes as long as many steps."""


LOG = logging.getLogger("diffugen")


class Checkpoints(Protocol):
    """Stores the state of a training until it is finished."""

    key: str
    """The name of the checkpoint, for messages."""

    def load(self) -> bytes | None:
        """Return the last checkpoint; None where there is none."""
        ...

    def save(self, data: bytes) -> None:
        """Store a checkpoint; it replaces the last one."""
        ...


def train(
    loaded: DiffusionModel,
    images: Sequence[TrainingImage],
    digests: Mapping[str, str],
    settings: TrainingSettings,
    checkpoints: Checkpoints,
    *,
    address: str,
    field: str,
    on_progress: Callable[[TrainingState], None] = lambda _: None,
    on_preview: Callable[[bytes], None] | None = None,
    stop: Event | None = None,
    similarity: ImageSimilarity | None = None,
) -> dict[str, bytes]:
    """Train a word and return its files by name, the card last.

    A checkpoint of the same training is resumed. `on_preview` gets a PNG with samples every few minutes. If `stop` is
    set, a checkpoint is saved and `Interrupted` is raised. `similarity` compares images for the card.

    Raises `SpecError` naming `field` or a field in it.
    """
    began = time.monotonic()
    family = family_of(loaded.model.pipeline)
    model = family.token_model(loaded, settings.token, settings.initializer, settings.vectors, field=field)
    try:
        training = Training(model, images, settings)
        found = checkpoints.load()
        state = _state_in(found, checkpoints.key, address, model.vectors)
        if state is not None:
            state.resumed.append(state.step)
        last = previewed = time.monotonic()

        def on_step(now: TrainingState) -> None:
            nonlocal last, previewed
            on_progress(now)
            stopped = stop is not None and stop.is_set()
            evaluated = now.evaluations[-1][0] == now.step
            if stopped or evaluated or time.monotonic() - last >= _SAVE_EVERY:
                checkpoints.save(dumps(now, address))
                last = time.monotonic()
            if on_preview is not None and not stopped and time.monotonic() - previewed >= _PREVIEW_EVERY:
                on_preview(sample_grid(model, images, settings))
                previewed = time.monotonic()
            if stopped:
                raise Interrupted(
                    f"stopped after {now.step:,} of {settings.steps:,} steps; the same command goes on from there"
                )

        state = training.run(state or training.begin(), on_step)
        seconds = time.monotonic() - began
        return artifacts(
            model, images, digests, settings, state, address=address, seconds=seconds, similarity=similarity
        )
    finally:
        model.close()


def _state_in(file: bytes | None, key: str, address: str, vectors: Sequence[torch.Tensor]) -> TrainingState | None:
    """Return the state in a checkpoint; None if there is none, or if it is damaged, which is logged."""
    if file is None:
        return None
    try:
        return loads(file, address, vectors)
    except ValueError as error:
        LOG.warning("%s is damaged (%s); it counts as missing, and the training begins anew", key, error)
        return None
