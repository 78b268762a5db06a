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

from diffugen_generator.publishing.polygons import KEEP, Points, outlines_of, overlap, polygons_of
from diffugen_generator.samples.labels import Rle
from diffugen_generator.samples.run_lengths import runs_of

Choice = Literal["auto", "polygon", "rle"]


def segmentation_of(segmentation: Rle, choice: Choice) -> list[list[float]] | dict[str, Any]:
    """Return the mask as COCO's JSON data: a list of polygons [x, y, x, y, ...], or an RLE with `counts` as a list."""
    if choice == "rle":
        return stored_run_lengths(segmentation)
    mask, corner = _cropped(segmentation.mask())
    parts = outlines_of(mask)
    if choice == "auto" and any(len(part) > 1 for part in parts):  # a hole
        return stored_run_lengths(segmentation)
    readers = (by_pycocotools,) if choice == "polygon" else (by_pycocotools, by_rounding)

    def read_back(polygons: Sequence[Points]) -> bool:
        return all(overlap(read(polygons, mask.shape), mask) >= KEEP for read in readers)

    for polygons in polygons_of(parts):
        if read_back(polygons):
            return _flat([polygon + corner for polygon in polygons])
    return (
        _flat([polygon + corner for polygon in polygons]) if choice == "polygon" else stored_run_lengths(segmentation)
    )


def _cropped(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return the part of `mask` [h, w] with the object and a border of a pixel, and its upper left corner (x, y)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return mask, np.zeros(2, np.int64)
    top, left = max(0, int(rows[0]) - 1), max(0, int(columns[0]) - 1)
    return mask[top : rows[-1] + 2, left : columns[-1] + 2], np.array([left, top])


def stored_run_lengths(segmentation: Rle) -> dict[str, Any]:
    """Return `run_lengths` of a stored mask; it is only decoded where its runs are not those of COCO."""
    runs = runs_of(segmentation.counts)
    if 0 in runs[1:]:  # a run of no pixel between two others
        return run_lengths(segmentation.mask())
    return {"size": list(segmentation.size), "counts": runs}


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
    return [polygon.ravel().round(2).tolist() for polygon in polygons]
