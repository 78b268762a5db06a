"""What the report shows of one image beside its labels: a thumbnail, and the attention maps from the stored evidence.

Both are made while the images are read for publishing, in the threads that read them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffugen_api import layout
from diffugen_api.plan import StageRecipe
from diffugen_generator.failures import Missing
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.store.protocol import Store

LARGEST = 128
"""Longest side of a thumbnail in pixels."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What the report shows of one image."""

    thumbnail: NDArray[np.uint8] | None = None
    """[h, w, 3] sRGB; None where there is no image, or none that can be decoded."""
    maps: AttentionMaps | None = None
    """None if attention does not label, or if the evidence is gone or damaged."""


def preview_of(
    sample: LabeledSample, image: StoredImage, recipes: Mapping[str, StageRecipe], store: Store, cell: int
) -> Preview:
    """Read what the report shows of a sample; `cell` is the longest side of a thumbnail in pixels.

    `recipes` are the stages' by name. An image or an evidence file that cannot be read is left out: publishing itself
    reports what is missing from the dataset.
    """
    if not sample.image:
        return Preview()
    try:
        thumbnail = thumbnail_of(image.read(), cell)
    except (Missing, ValueError):
        thumbnail = None
    recipe = recipes.get(sample.stage)
    return Preview(thumbnail, _maps(sample, recipe, store) if recipe is not None and recipe.evidence_id else None)


def thumbnail_of(data: bytes, cell: int) -> NDArray[np.uint8]:
    """Return an image file's pixels [h, w, 3], at most `cell` on the longest side; raise `ValueError`."""
    if _is_small_png(data, cell):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is not None:  # [h, w, 3] BGR
            return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    try:
        with Image.open(io.BytesIO(data)) as file:
            file.draft("RGB", (cell, cell))  # JPEG decodes to a smaller size at once
            small = file.convert("RGB")
            small.thumbnail((cell, cell), Image.Resampling.HAMMING, reducing_gap=2.0)
            return np.asarray(small)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"not an image: {error}") from error


_PNG = b"\x89PNG\r\n\x1a\n"
_RGB_8 = b"\x08\x02"
"""Bit depth and color type in the header of a PNG as this project writes it."""


def _is_small_png(data: bytes, cell: int) -> bool:
    """Return whether a file is a PNG of 8 bits RGB that is not larger than a thumbnail.

    OpenCV decodes such a file in a third of the time, to the same pixels.
    """
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    return data.startswith(_PNG) and max(width, height) <= cell and data[24:26] == _RGB_8


def _maps(sample: LabeledSample, recipe: StageRecipe, store: Store) -> AttentionMaps | None:
    try:
        data = store.read(layout.evidence(sample.stage, recipe.evidence_id, sample.sample.id))
        return AttentionMaps.loads(data, sample.sample.id)
    except (Missing, ValueError):
        return None
