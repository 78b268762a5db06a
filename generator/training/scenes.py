"""Drawn scenes with exact masks: the data of `builtin://shapes`, and ground truth for tests and benchmarks.

A scene is a 64x64 image of one or two objects on a plain background. Objects are signed-distance shapes in one of six
colors with clearly different hues. Backgrounds are nearly grey, so that hue alone separates an object from the
background. Each class has its own coarse pattern of lightness on the object's color, so that a class word means more
than an outline. Two objects are side by side, and captions name them from left to right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diffugen_generator.builtin_shapes.outlines import Floats, shapes
from diffugen_generator.builtin_shapes.vocabulary import BACKGROUNDS, CLASSES, COLORS, SIZE

__all__ = [
    "BACKGROUNDS", "CLASSES", "COLORS", "NOTHING", "SIZE", "Scenes", "Words", "draw", "drawn_caption", "full_caption",
    "words_of",
]  # fmt: skip

NOTHING: Final = -1
"""Class and color index of a missing object."""


@dataclass(frozen=True)
class Scenes:
    """`n` scenes as arrays; object 0 is left of object 1."""

    images: NDArray[np.uint8]
    """[n, 64, 64, 3] sRGB."""
    masks: NDArray[np.bool_]
    """[n, 2, 64, 64] exact masks: pixels covered by half or more; all False where there is no object."""
    classes: NDArray[np.int64]
    """[n, 2] indices into `CLASSES`, or `NOTHING`."""
    colors: NDArray[np.int64]
    """[n, 2] indices into `COLORS`, or `NOTHING`."""
    backgrounds: NDArray[np.int64]
    """[n] indices into `BACKGROUNDS`."""


@dataclass(frozen=True)
class Words:
    """The words that a caption of one scene can use."""

    objects: tuple[tuple[str, str], ...]
    """(color, class) of each object, left to right."""
    background: str


def words_of(scenes: Scenes, index: int) -> Words:
    """The color, class and background words of scene `index`."""
    colors, backgrounds = tuple(COLORS), tuple(BACKGROUNDS)
    objects = tuple(
        (colors[color], CLASSES[kind])
        for color, kind in zip(scenes.colors[index], scenes.classes[index], strict=True)
        if kind != NOTHING
    )
    return Words(objects, backgrounds[scenes.backgrounds[index]])


def full_caption(words: Words) -> str:
    """`a red ball and a blue star on snow`: the caption with all words of the scene."""
    named = " and ".join(f"a {color} {kind}" for color, kind in words.objects)
    return f"{named} on {words.background}"


def drawn_caption(words: Words, rng: np.random.Generator) -> str:
    """A caption for training.

    10 % are empty; of the rest 15 % are bare nouns, 30 % leave words out, and 55 % are full.
    """
    if rng.random() < 0.10:
        return ""
    style = rng.random()
    if style < 0.15:
        return " and ".join(kind for _, kind in words.objects)
    keep = 0.5 if style < 0.45 else 1.0
    named = " and ".join(f"a {color} {kind}" if rng.random() < keep else f"a {kind}" for color, kind in words.objects)
    opening = "a photo of " if rng.random() < 0.2 else ""
    ending = f" on {words.background}" if rng.random() < keep else ""
    return f"{opening}{named}{ending}"


def draw(count: int, rng: np.random.Generator, *, two: float = 0.65) -> Scenes:
    """Draw `count` scenes, a share `two` of them with two objects of different class and color."""
    pair = rng.random(count) < two
    classes = np.stack([rng.permutation(len(CLASSES))[:2] for _ in range(count)]).reshape(count, 2)
    colors = np.stack([rng.permutation(len(COLORS))[:2] for _ in range(count)]).reshape(count, 2)
    classes[~pair, 1] = NOTHING
    colors[~pair, 1] = NOTHING
    backgrounds = rng.integers(len(BACKGROUNDS), size=count)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    masks = np.empty((count, 2, SIZE, SIZE), np.bool_)
    for start in range(0, count, 512):  # bounds the float arrays to some 50 MB
        part = slice(start, start + 512)
        images[part], masks[part] = _render(classes[part], colors[part], backgrounds[part], rng)
    return Scenes(images, masks, classes, colors, backgrounds)


def _render(
    classes: NDArray[np.int64],
    colors: NDArray[np.int64],
    backgrounds: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Images [n, 64, 64, 3] and masks [n, 2, 64, 64] of scenes with these contents."""
    count = len(classes)
    pair = classes[:, 1] != NOTHING
    canvas = _background(backgrounds, rng)
    palette = np.array(list(COLORS.values()), np.float32)
    masks = np.zeros((count, 2, SIZE, SIZE), np.bool_)
    for slot, side in enumerate((-1.0, 1.0)):
        there = classes[:, slot] != NOTHING
        # Two objects: 15 px left and right of the middle, so that the widest (half width 15) do not touch.
        radius = np.where(pair, rng.uniform(9.6, 11.6, count), rng.uniform(10.5, 16.0, count))
        x = np.where(pair, 31.5 + 15.5 * side + rng.uniform(-1.5, 1.5, count), rng.uniform(22.0, 41.0, count))
        y = np.where(pair, rng.uniform(22.0, 41.0, count), rng.uniform(23.0, 40.0, count))
        turn = rng.uniform(-0.17, 0.17, count)
        distance, lightness, whiteness = shapes(classes[:, slot], radius, x, y, turn)
        cover = np.clip(0.5 - distance, 0.0, 1.0) * there[:, None, None]
        paint = palette[colors[:, slot]] + rng.normal(0.0, 7.0, (count, 3))
        paint = paint[:, None, None, :] * lightness[..., None]
        paint = paint + (255.0 - paint) * whiteness[..., None]
        canvas += (paint - canvas) * cover[..., None]
        masks[:, slot] = cover >= 0.5
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8), masks


def _background(backgrounds: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Plain backgrounds [n, 64, 64, 3]: brightness varies by image, and a little from top to bottom."""
    count = len(backgrounds)
    palette = np.array(list(BACKGROUNDS.values()), np.float32)
    brightness = rng.uniform(0.93, 1.07, (count, 1, 1, 1))
    slope = rng.uniform(-0.05, 0.05, (count, 1, 1, 1)) * np.linspace(-1.0, 1.0, SIZE).reshape(1, SIZE, 1, 1)
    plain = palette[backgrounds][:, None, None, :] * (brightness + slope)
    return np.broadcast_to(plain, (count, SIZE, SIZE, 3)).astype(np.float32)
