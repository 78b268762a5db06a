"""Reads the training images of a word from a store or a folder: scaled to one size, with optional masks.

A mask is an image of the same name in another folder, bright where the object is. It limits the loss to the object.
No torch.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from diffugen_api.errors import SpecError

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_BRIGHT: Final = 127


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """One image to learn from."""

    name: str
    pixels: NDArray[np.uint8]
    """[height, width, 3] sRGB."""
    mask: NDArray[np.bool_] | None = None
    """[height, width], True where the loss counts; None where it counts everywhere."""


def training_images(
    files: Mapping[str, bytes], masks: Mapping[str, bytes], size: tuple[int, int], *, field: str
) -> list[TrainingImage]:
    """Return images of `size` (width, height): the largest centered part of each, in the order of their names.

    `files` and `masks` have the content by name; a mask has its image's name, with any suffix. Raises `SpecError`
    naming `field`, the field that names the images.
    """
    wanted = {name: data for name, data in sorted(files.items()) if name.lower().endswith(SUFFIXES)}
    if not wanted:
        raise SpecError("NoImages", f"{field}: there is no image ({', '.join(SUFFIXES)}) there; put 3 to 30 there.")
    by_stem = {_stem(name): (name, data) for name, data in masks.items() if name.lower().endswith(SUFFIXES)}
    images = []
    for name, data in wanted.items():
        mask = None
        if masks:
            if _stem(name) not in by_stem:
                raise SpecError("NoMask", f"{field}: {name} has no mask of its name; add one, or give no masks.")
            mask = _fitted(_opened(*by_stem[_stem(name)], field).convert("L"), size, Image.Resampling.BILINEAR)
        pixels = _fitted(_opened(name, data, field).convert("RGB"), size, Image.Resampling.LANCZOS)
        bright = None if mask is None else np.asarray(mask) > _BRIGHT
        if bright is not None and not bright.any():
            raise SpecError(
                "EmptyMask", f"{field}: the mask of {name} is dark everywhere; paint the object white in it."
            )
        images.append(TrainingImage(name, np.asarray(pixels), bright))
    return images


def digests_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 in hex of each image's file, by its name."""
    wanted = sorted(name for name in files if name.lower().endswith(SUFFIXES))
    return {name: hashlib.sha256(files[name]).hexdigest() for name in wanted}


def mirrored(images: Iterable[TrainingImage]) -> Sequence[TrainingImage]:
    """Return the mirror images."""
    return [
        TrainingImage(each.name, each.pixels[:, ::-1].copy(), None if each.mask is None else each.mask[:, ::-1].copy())
        for each in images
    ]


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _opened(name: str, data: bytes, field: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return ImageOps.exif_transpose(image.copy())
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise SpecError("InvalidImage", f"{field}: {name} is no whole image ({error}); remove or replace it.") from None


def _fitted(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    return ImageOps.fit(image, size, how)
