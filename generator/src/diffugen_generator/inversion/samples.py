"""Sample images of a trained word: the training images in the first row, images drawn with the word below."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffugen_generator.diffusion.drawing import Drawer, DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.model import DiffusionModel

COLUMNS: Final = 4
_GAP: Final = 4


def draw_samples(
    model: DiffusionModel, prompts: Sequence[str], settings: DrawingSettings, *, seed: int
) -> list[NDArray[np.uint8]]:
    """Draw one image [height, width, 3] for each prompt; seeds count up from `seed`."""
    drawer = Drawer(model, TextStates(model))
    requests = [DrawRequest(prompt, seed + number) for number, prompt in enumerate(prompts)]
    batches = (requests[at : at + COLUMNS] for at in range(0, len(requests), COLUMNS))
    return [image for batch in batches for image in drawer.decode(drawer.sample(batch, settings))]


def grid(images: Sequence[NDArray[np.uint8]], drawn: Sequence[NDArray[np.uint8]]) -> bytes:
    """Return a PNG with up to four of `images` in the first row and `drawn` below, all of one size."""
    height, width = drawn[0].shape[:2] if drawn else images[0].shape[:2]
    rows = [list(images[:COLUMNS]), *(list(drawn[at : at + COLUMNS]) for at in range(0, len(drawn), COLUMNS))]
    sheet = Image.new("RGB", (COLUMNS * (width + _GAP) + _GAP, len(rows) * (height + _GAP) + 3 * _GAP), "white")
    for row, places in enumerate(rows):
        top = _GAP + row * (height + _GAP) + (2 * _GAP if row else 0)  # a wider gap below the first row
        for column, image in enumerate(places):
            sheet.paste(Image.fromarray(image), (_GAP + column * (width + _GAP), top))
    stream = io.BytesIO()
    sheet.save(stream, "png")
    return stream.getvalue()
