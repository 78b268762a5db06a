"""From the pixels of each class to objects: connected parts, each with its score, box and mask."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from diffugen_generator.samples.labels import Instance, Rle

SPECK = 0.001
"""A part smaller than this share of the image is dropped: 4 pixels of 64 x 64, 262 of 512 x 512."""
GAP = 0.01
"""Parts are widened by this share of the shorter side to check whether they touch: parts with a very small gap are one
object, divided by a stripe or a shadow. One pixel of 64, five of 512; the mask itself is not widened."""
SPECK_OF_LARGEST = 0.05
"""A part smaller than this share of the class's largest part is dropped: it is a fragment of that part's border."""


def instances_of(owners: NDArray[np.int32], maps: NDArray[np.float32], classes: Sequence[str]) -> list[Instance]:
    """Return the objects, class by class, the largest first; holes are not filled.

    Args:
        owners: [height, width]; each pixel's class as an index into `classes`, negative for none.
        maps: [words, height, width] in 0..1, the classes' maps first.
        classes: the classes' names.
    """
    found = []
    for index, name in enumerate(classes):
        owned = owners == index
        outside = maps[index][~owned]
        level = float(outside.mean()) if outside.size else 0.0
        for mask in parts_of(owned):
            score = min(1.0, max(0.0, float(maps[index][mask].mean()) - level))
            found.append(_instance(name, mask, score))
    return found


def parts_of(owned: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Return the connected parts of `owned` [height, width], the largest first, without specks."""
    reach = max(1, round(GAP * min(owned.shape)))
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    count, touching = cv2.connectedComponents(cv2.dilate(owned.astype(np.uint8), brush), connectivity=8)
    if count == 1:
        return []
    labels = np.where(owned, touching, 0)
    areas = np.bincount(labels.ravel(), minlength=count)[1:]
    least = max(SPECK * owned.size, SPECK_OF_LARGEST * int(areas.max()))
    order = np.argsort(-areas, kind="stable")
    return [labels == part + 1 for part in order if areas[part] >= least]


def _instance(name: str, mask: NDArray[np.bool_], score: float) -> Instance:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    box = (float(x), float(y), float(columns[-1] + 1 - x), float(rows[-1] + 1 - y))
    return Instance(name, score, box, int(mask.sum()), Rle.of(mask))
