"""Pictures that `builtin://shapes` draws, as far as they show what was asked for; the colour oracle tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from diffugen_generator.builtin import SHAPES_PIPELINE, oracle, scenes

BATCH = 16
"""Prompts at once; with the seed it decides the pictures."""


class Right(NamedTuple):
    """A picture that shows what its prompt asks for."""

    picture: NDArray[np.uint8]
    """[64, 64, 3] sRGB."""
    objects: list[tuple[str, NDArray[np.bool_]]]
    """Class and mask [64, 64] of each object, from left to right."""


def right_pictures(words: Sequence[scenes.Words], seed: int) -> Iterator[list[Right]]:
    """Draw a picture for each of `words`; yield those that are right, of `BATCH` prompts at a time."""
    pipeline = StableDiffusionPipeline.from_pretrained(SHAPES_PIPELINE, dtype=torch.float32)
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
        pictures = (drawn * 255).round().astype(np.uint8)
        yield [
            Right(picture, [(dict(each.objects)[one.colour], one.mask) for one in oracle.objects_of(picture)])
            for picture, each in zip(pictures, part, strict=True)
            if oracle.shows(picture, dict(each.objects))
        ]
