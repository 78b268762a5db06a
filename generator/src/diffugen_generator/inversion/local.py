"""Runs a training on this machine, without a cluster: images from a folder, results into a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import torch

from diffugen_api.errors import SpecError
from diffugen_generator.bounded_json import json_of
from diffugen_generator.families.registry import family_of
from diffugen_generator.inversion.images import SUFFIXES, digests_of, training_images
from diffugen_generator.inversion.presence import ImageSimilarity
from diffugen_generator.inversion.request import address_of
from diffugen_generator.inversion.result_names import CARD, CHECKPOINT, PREVIEW
from diffugen_generator.inversion.settings import TrainingSettings
from diffugen_generator.inversion.train import train
from diffugen_generator.inversion.training import TrainingState
from diffugen_generator.models.resolve import resolve


@dataclass(frozen=True, slots=True)
class Sources:
    """The model and the images of a training."""

    model: str
    """builtin://CHECKPOINT, hf://…, s3://… or the absolute path of a folder."""
    images: Path
    masks: Path | None = None


def train_here(
    sources: Sources,
    settings: TrainingSettings,
    output: Path,
    device: torch.device,
    *,
    on_progress: Callable[[TrainingState], None] = lambda _: None,
    on_loading: Callable[[], None] = lambda: None,
    stop: Event | None = None,
    similarity: Callable[[], ImageSimilarity] | None = None,
) -> dict[str, Any]:
    """Train a word into the folder `output` and return its card; a finished training is not repeated.

    `similarity` opens a model that compares images, for the card. Raises `SpecError` for invalid input, and
    `Interrupted` if `stop` is set: the next call continues from there.
    """
    files = _files(sources.images, "IMAGES")
    masks = _files(sources.masks, "--masks") if sources.masks is not None else {}
    model = resolve(sources.model, field="--model")
    digests = digests_of(files)
    wanted = address_of(settings, model.digest, digests, digests_of(masks))
    if (card := read_card(output)) is not None and card.get("address") == wanted:
        return card
    images = training_images(files, masks, (settings.width, settings.height), field="IMAGES")
    output.mkdir(parents=True, exist_ok=True)
    on_loading()
    loaded = family_of(model.pipeline).load(model, device)
    checkpoints = _FolderCheckpoints(output / CHECKPOINT)
    made = train(
        loaded,
        images,
        digests,
        settings,
        checkpoints,
        address=wanted,
        field="train-token",
        on_progress=on_progress,
        on_preview=lambda image: _write(output / PREVIEW, image),
        stop=stop,
        similarity=similarity() if similarity is not None else None,
    )
    for name, data in made.items():
        _write(output / name, data)
    for leftover in (CHECKPOINT, PREVIEW):
        (output / leftover).unlink(missing_ok=True)
    found: dict[str, Any] = json.loads(made[CARD])
    return found


class _FolderCheckpoints:
    """The checkpoint in the output folder."""

    def __init__(self, path: Path) -> None:
        self.key = str(path)
        self._path = path

    def load(self) -> bytes | None:
        return self._path.read_bytes() if self._path.is_file() else None

    def save(self, data: bytes) -> None:
        _write(self._path, data)


def _write(path: Path, data: bytes) -> None:
    """Write a file so that it is either complete or missing."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def read_card(output: Path) -> dict[str, Any] | None:
    """Return the card of a finished training; None if there is none, or if it is damaged."""
    try:
        card = json_of((output / CARD).read_bytes())
    except (OSError, ValueError):
        return None
    return card if isinstance(card, dict) else None


def _files(folder: Path, field: str) -> dict[str, bytes]:
    if not folder.is_dir():
        raise SpecError("NoSuchFolder", f"{field}: there is no folder {str(folder)!r}; give one with images.")
    wanted = (file for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in wanted}
