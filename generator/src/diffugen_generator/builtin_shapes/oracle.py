"""The color oracle: finds an image's objects by hue, and checks whether they are the requested ones.

It does not use classes, and no training uses it as a loss. Objects have saturated colors of six hues, and
backgrounds are nearly grey. So each pixel gets the nearest named hue, or none. A majority vote in 3x3 pixels removes
single wrong pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from diffugen_generator.builtin_shapes.outlines import AREAS, outlines
from diffugen_generator.builtin_shapes.vocabulary import CLASSES, COLORS

SMALLEST, LARGEST = 0.012, 0.40
"""Share of the image that an object covers."""

WHOLENESS: Final = 0.85
"""Least share of an object's pixels in its largest connected part."""

CHROMA, SATURATION = 0.20, 0.34
"""Least max - min, and least (max - min) / max, of a pixel's sRGB in 0..1, for it to have a hue at all."""


@dataclass(frozen=True)
class Found:
    """One object that the oracle found."""

    color: str
    mask: NDArray[np.bool_]
    """[height, width]; only the largest connected part."""


def colors_of(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Index into `COLORS` of each pixel of `image` [h, w, 3], or -1 where it has no hue: [h, w]."""
    rgb = image.astype(np.float32) / 255.0
    strength = rgb.max(axis=2) - rgb.min(axis=2)
    colored = (strength >= CHROMA) & (strength >= SATURATION * rgb.max(axis=2))
    apart = _directions(rgb) @ _directions(np.array(list(COLORS.values()), np.float32) / 255.0).T  # [h, w, 6]
    votes = np.zeros((*image.shape[:2], len(COLORS) + 1), np.float32)
    nearest = np.where(colored, apart.argmax(axis=2), len(COLORS))
    np.put_along_axis(votes, nearest[..., None], 1.0, axis=2)
    counts = np.stack([cv2.blur(np.ascontiguousarray(votes[..., i]), (3, 3)) for i in range(votes.shape[2])], axis=2)
    winner = (counts + 0.01 * votes).argmax(axis=2)  # a tie goes to the pixel's own color
    return np.where(winner == len(COLORS), -1, winner)


def objects_of(image: NDArray[np.uint8]) -> list[Found]:
    """The objects in `image` [h, w, 3] sRGB, from left to right; at most one of each color."""
    nearest = colors_of(image)
    found = [Found(name, whole) for index, name in enumerate(COLORS) if (whole := _whole(nearest == index)) is not None]
    return sorted(found, key=lambda each: float(np.nonzero(each.mask)[1].mean()))


def shows(image: NDArray[np.uint8], wanted: Iterable[str]) -> bool:
    """Whether the objects in `image` have exactly the colors `wanted`, in any order."""
    return sorted(each.color for each in objects_of(image)) == sorted(wanted)


def outline_of(mask: NDArray[np.bool_]) -> str:
    """The class whose ideal outline of the same area, turned and moved, fits `mask` [64, 64] best."""
    rows, columns = np.nonzero(mask)
    x, y = (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2
    scores = {}
    for kind, name in enumerate(CLASSES):
        radius = float(np.sqrt(mask.sum() / AREAS[kind]))
        turns = np.linspace(-0.2, 0.2, 5)
        shifts = np.array([(dx, dy) for dx in (-1.0, 0.0, 1.0) for dy in (-1.0, 0.0, 1.0)])
        turn, shift = np.repeat(turns, len(shifts)), np.tile(shifts, (len(turns), 1))
        ideals = outlines(kind, radius=radius, x=x + shift[:, 0], y=y + shift[:, 1], turn=turn)
        scores[name] = max(_overlap(mask, ideal) for ideal in ideals)
    return max(scores, key=lambda name: scores[name])


def _directions(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """Hue of `rgb` [..., 3] as a unit vector [..., 2] in the plane across the grey axis (zero for greys)."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    plane = np.stack([2.0 * r - g - b, np.float32(np.sqrt(3.0)) * (g - b)], axis=-1)
    return np.asarray(plane / np.maximum(np.linalg.norm(plane, axis=-1, keepdims=True), 1e-6), np.float32)


def _whole(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The largest connected part of `mask`, if that is an object: not too small, too large or in pieces."""
    area = int(mask.sum())
    if not SMALLEST * mask.size <= area <= LARGEST * mask.size:
        return None
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    largest = int(stats[1:, cv2.CC_STAT_AREA].argmax()) + 1
    if stats[largest, cv2.CC_STAT_AREA] < WHOLENESS * area:
        return None
    return np.asarray(labels == largest)


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((one & other).sum() / max(1, (one | other).sum()))
