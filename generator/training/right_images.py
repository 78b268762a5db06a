"""Draws images with `builtin://shapes` and yields those with the requested objects, as checked by the color oracle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from diffugen_generator.builtin_shapes import oracle
from diffugen_generator.models.uris import BUILTIN_FOLDER
from generator.training import scenes

BATCH = 16
"""Prompts at once; with the seed it decides the images."""


class Right(NamedTuple):
    """An image that shows the objects of its prompt."""

    image: NDArray[np.uint8]
    """[64, 64, 3] sRGB."""
    objects: list[tuple[str, NDArray[np.bool_]]]
    """Class and mask [64, 64] of each object, from left to right."""


def right_images(words: Sequence[scenes.Words], seed: int) -> Iterator[list[Right]]:
    """Draw an image for each of `words`; yield those that are right, of `BATCH` prompts at a time."""
    pipeline = StableDiffusionPipeline.from_pretrained(BUILTIN_FOLDER / "shapes", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for start in range(0, len(words), BATCH):
        part = words[start : start + BATCH]
        drawn = pipeline(
            [scenes.full_caption(each) for each in part],
            num_inference_steps=20,
            guidance_scale=3.0,
            generator=[torch.Generator().manual_seed(seed + start + i) for i in range(len(part))],
            output_type="np",
        ).images
        images = (drawn * 255).round().astype(np.uint8)
        yield [
            Right(image, [(dict(each.objects)[one.color], one.mask) for one in oracle.objects_of(image)])
            for image, each in zip(images, part, strict=True)
            if oracle.shows(image, dict(each.objects))
        ]
