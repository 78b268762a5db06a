"""The field `segmentation` of a COCO annotation: polygons, or run lengths (RLE).

Readers do not agree on polygons. pycocotools, and with it torchvision, detectron2 and transformers, takes coordinates
as edges of pixels. supervision rounds them to whole pixels and fills the border. So a small object that one of them
reads correctly is a pixel too large in the other. `auto` writes polygons only where both readings give the mask back,
and RLE elsewhere. A hole is always RLE: COCO's polygons are added up, never subtracted.

Run lengths are written as a list of numbers. This is COCO's own form, and all readers take it. transformers cannot
read the compressed text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from diffugen_generator.publishing.polygons import KEEP, Points, has_holes, overlap, polygons_of
from diffugen_generator.samples.labels import Rle

Choice = Literal["auto", "polygon", "rle"]


def segmentation_of(segmentation: Rle, choice: Choice) -> list[list[float]] | dict[str, Any]:
    """Return the mask as COCO's JSON data: a list of polygons [x, y, x, y, ...], or an RLE with `counts` as a list."""
    mask = segmentation.mask()
    if choice == "rle" or (choice == "auto" and has_holes(mask)):
        return run_lengths(mask)
    if choice == "polygon":
        return _flat(polygons_of(mask, lambda polygons: overlap(by_pycocotools(polygons, mask.shape), mask) >= KEEP))

    def read_back(polygons: Sequence[Points]) -> bool:
        return all(overlap(read(polygons, mask.shape), mask) >= KEEP for read in (by_pycocotools, by_rounding))

    polygons = polygons_of(mask, read_back)
    return _flat(polygons) if read_back(polygons) else run_lengths(mask)


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the RLE of `mask` [h, w]: lengths of runs down the columns, in turn of 0 and of 1, the first of 0."""
    pixels = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(pixels)) + 1
    lengths = np.diff([0, *ends, pixels.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *lengths] if pixels.size and pixels[0] else lengths}


def by_pycocotools(polygons: Sequence[Points], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the mask of `shape` [h, w] that pycocotools reads in polygons."""
    if not polygons:
        return np.zeros(shape, np.bool_)
    encoded = coco_mask.merge(coco_mask.frPyObjects(_flat(polygons), *shape))
    return np.asarray(coco_mask.decode(encoded), np.bool_)


def by_rounding(polygons: Sequence[Points], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the mask of `shape` [h, w] that a reader makes that rounds to pixels and fills the border."""
    canvas = np.zeros(shape, np.uint8)
    for polygon in polygons:
        cv2.fillPoly(canvas, [np.round(polygon).astype(np.int32)], (1,))
    return canvas.astype(np.bool_)


def _flat(polygons: Sequence[Points]) -> list[list[float]]:
    return [[round(float(value), 2) for value in polygon.ravel()] for polygon in polygons]
