"""The input of a training: its settings, its images, and the content address of both. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from diffugen_api.addresses import address
from diffugen_api.errors import SpecError
from diffugen_api.v1alpha1 import S3, Image, TextualInversion
from diffugen_generator.inversion.images import SUFFIXES
from diffugen_generator.inversion.settings import TrainingSettings
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.opening import open_bucket
from diffugen_generator.store.protocol import Store

INVERSION_VERSION: Final = 1
"""Raised when the same images and settings lead to other vectors."""
_BUCKET: Final = "s3://"


def address_of(
    settings: TrainingSettings, model_digest: str, images: Mapping[str, str], masks: Mapping[str, str]
) -> str:
    """Return the content address of a training: a hash over everything that decides its result.

    `images` and `masks` have the SHA-256s of the files by name.
    """
    chosen = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}
    content = {
        "version": INVERSION_VERSION,
        "model": model_digest,
        "images": dict(images),
        "masks": dict(masks),
        "settings": chosen,
    }
    return address(content)


def settings_of(task: TextualInversion, image: Image) -> TrainingSettings:
    """Return the settings of a stage's training; images are scaled to the dataset's size."""
    return TrainingSettings(
        token=task.token,
        initializer=task.initializer,
        vectors=task.vectors,
        learn=task.learn,
        templates=tuple(task.templates),
        steps=task.steps,
        learning_rate=task.learning_rate,
        batch=task.batch_size,
        accumulate=task.accumulate,
        seed=task.seed,
        flip=task.flip,
        width=image.width,
        height=image.height,
        patience=task.patience,
    )


def read_images(place: str, s3: S3 | None, *, field: str) -> dict[str, bytes]:
    """Return the image files of a folder by their names: `s3://BUCKET/PREFIX` or an absolute path.

    `s3` has the endpoint and credentials for `s3://`. Raises `SpecError` naming `field`, or a `StoreFailure`.
    """
    store = _opened(place, s3, field)
    names = [name for name in store.list("") if name.lower().endswith(SUFFIXES)]
    if not names:
        raise SpecError(
            "NoImages", f"{field}: there is no image ({', '.join(SUFFIXES)}) in {place}; put 3 to 30 there."
        )
    return {name: store.read(name) for name in names}


def read_captions(place: str, s3: S3 | None, *, field: str) -> dict[str, str]:
    """Return the text files of a folder, as in `read_images`, by their names without the suffix `.txt`."""
    store = _opened(place, s3, field)
    names = [name for name in store.list("") if name.lower().endswith(".txt")]
    return {name[: -len(".txt")]: store.read(name).decode("utf-8", "replace") for name in names}


def _opened(place: str, s3: S3 | None, field: str) -> Store:
    if not place.startswith(_BUCKET):
        folder = Path(place)
        if not folder.is_absolute() or not folder.is_dir():
            raise SpecError("NoSuchFolder", f"{field}: there is no folder {place!r}; give an absolute path or s3://….")
        return FolderStore(folder)
    if s3 is None:
        raise SpecError("NoStore", f"{field}: {place} has no store: give spec.output.s3, whose endpoint it means.")
    parts = urlsplit(place)
    return open_bucket(s3.model_copy(update={"bucket": parts.netloc, "prefix": parts.path.strip("/")}), "", "")
