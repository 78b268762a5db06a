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
TOUCHING = 0.25
"""The least share of a fragment's border that an object must touch to get the fragment."""
NOTHING = -1
"""The owner of a pixel that is in no object."""


def without_fragments(owners: NDArray[np.int32], fraction: float) -> NDArray[np.int32]:
    """Return the owners of the pixels, with fragments of one class at another class's object given to that object.

    Attention of one word can win at the border of another word's object. Such a part is much smaller than the class's
    own object. If little of its border touches an object, it goes to the background.

    Args:
        owners: [height, width]; each pixel's class, negative for none.
        fraction: a part is a fragment if it is smaller than this fraction of its class's largest part.
    """
    result = owners.copy()
    brush = _brush(owners.shape)
    for index in np.unique(owners[owners >= 0]):
        count, parts = cv2.connectedComponents((owners == index).astype(np.uint8), connectivity=8)
        areas = np.bincount(parts.ravel(), minlength=count)[1:]
        for part in np.flatnonzero(areas < fraction * areas.max()) + 1:
            mask = parts == part
            around = owners[(cv2.dilate(mask.astype(np.uint8), brush) > 0) & ~mask]
            others = around[(around >= 0) & (around != index)]
            if others.size:
                touched = np.bincount(others)
                enough = int(touched.max()) >= TOUCHING * around.size
                result[mask] = int(touched.argmax()) if enough else NOTHING
    return result


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
    dilated = cv2.dilate(owned.astype(np.uint8), _brush(owned.shape))
    count, touching = cv2.connectedComponents(dilated, connectivity=8)
    if count == 1:
        return []
    labels = np.where(owned, touching, 0)
    areas = np.bincount(labels.ravel(), minlength=count)[1:]
    least = max(SPECK * owned.size, SPECK_OF_LARGEST * int(areas.max()))
    order = np.argsort(-areas, kind="stable")
    return [labels == part + 1 for part in order if areas[part] >= least]


def _brush(size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the brush by which parts are widened to find what they touch in an image of `size`."""
    reach = max(1, round(GAP * min(size)))
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)), np.uint8)


def _instance(name: str, mask: NDArray[np.bool_], score: float) -> Instance:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    box = (float(x), float(y), float(columns[-1] + 1 - x), float(rows[-1] + 1 - y))
    return Instance(name, score, box, int(mask.sum()), Rle.of(mask))
