"""Masks as polygons that give the mask back: one closed line for each object, holes and scattered parts included.

YOLO's format can hold one polygon an object. Converters usually make three errors with it, which this module avoids:

- *Half a pixel.* OpenCV's contours run through the centres of the border pixels, so an object loses half a pixel
  on every side: a sixth of a 12-pixel one. Here the line runs along the pixels' outer edges, a fiftieth of a pixel
  inside. The area is right at any scale, and readers that truncate coordinates to whole pixels and fill the border
  (Ultralytics does) get exactly the same mask.
- *Holes and parts.* A bridge joins each one to the rest. The line runs along a bridge in both directions on the same
  points, so that the bridge has no area. The bridges are the shortest that join all rings (a minimum spanning tree
  over their points).
- *Size.* Stair-shaped lines become sloped lines where the filled polygon still has an IoU of `KEEP` with the mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

KEEP = 0.98
"""Least IoU of a simplified polygon with its mask."""

_TOLERANCES = (0.75, 0.4)
"""Largest error of a simplified line, in pixels; the first that reaches `KEEP` is used, else the exact line."""
_FINER = 3
"""Simplified lines are compared on a grid this many times finer than the pixels, so that half a pixel counts."""
_INSET = 0.02
"""In pixels; well above the rounding error of six digits of a fraction of 2048 pixels (0.001)."""

Points = NDArray[np.float64]
"""Points [n, 2] (x, y) of a closed line, in pixels."""

Ring = NDArray[np.int32]
"""Points [n, 2] on the grid of half pixels: 2x is pixel x's left or upper edge, 2x + 1 its right or lower one."""


def polygon_of(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the polygon of `mask` [h, w] as points [n, 2] (x, y) in pixels; [0, 2] where the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return np.zeros((0, 2))
    top, left = int(rows[0]), int(columns[0])
    crop = np.ascontiguousarray(mask[top : rows[-1] + 1, left : columns[-1] + 1], dtype=np.uint8)
    points: NDArray[np.float64] = _smallest(crop) + np.array([left, top])
    return points


def polygons_of(parts: Sequence[Sequence[Ring]]) -> Iterator[list[Points]]:
    """Yield a polygon for each of `parts`, which are those of `outlines_of`, in three forms.

    Two are simplified, the simplest first; the third is the exact outline of the pixels. Holes are joined to the border
    of their part by bridges.
    """
    for tolerance in _TOLERANCES:
        yield [_in_pixels(_joined([_simplified(ring, tolerance) for ring in part])) for part in parts]
    yield [_in_pixels(_joined(part)) for part in parts]


def outlines_of(mask: NDArray[np.bool_]) -> list[list[Ring]]:
    """Trace each connected part of `mask` [h, w]: its border first, then its holes; no part where the mask is empty."""
    return _parts(mask.astype(np.uint8))


def filled(polygon: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask [height, width] that Ultralytics makes of `polygon`."""
    return _filled([polygon], height, width)


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the IoU of two masks of one shape; 1 where both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def _filled(rings: Sequence[NDArray[np.float64]], height: int, width: int) -> NDArray[np.bool_]:
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [ring.astype(np.int32) for ring in rings if len(ring)], (1,))
    return canvas.astype(np.bool_)


def _smallest(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
    rings = _rings(crop)
    finer = _enlarged(crop, _FINER).astype(np.bool_)
    for tolerance in _TOLERANCES:
        simpler = [_simplified(ring, tolerance) for ring in rings]
        again = _filled([_in_pixels(ring) * _FINER for ring in simpler], *finer.shape)
        if overlap(again, finer) >= KEEP:
            return _in_pixels(_joined(simpler))
    return _in_pixels(_joined(rings))


def _rings(crop: NDArray[np.uint8]) -> list[Ring]:
    """Trace the borders of a mask [h, w] and of its holes, the latter the other way round."""
    return [ring for part in _parts(crop) for ring in part]


def _parts(crop: NDArray[np.uint8]) -> list[list[Ring]]:
    """Trace each connected part of a mask [h, w]: its border first, then its holes."""
    halves = _enlarged(crop, 2)  # [2h, 2w]
    contours, tree = cv2.findContours(halves, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts: dict[int, list[Ring]] = {}
    parents = [int(row[3]) for row in tree[0]] if contours else []
    # borders before holes, as a hole may come first in OpenCV's list
    for number in sorted(range(len(contours)), key=lambda number: parents[number] >= 0):
        ring = contours[number].reshape(-1, 2).astype(np.int32)
        parts.setdefault(number if parents[number] < 0 else parents[number], []).append(ring)
    return list(parts.values())


def _enlarged(crop: NDArray[np.uint8], times: int) -> NDArray[np.uint8]:
    return crop.repeat(times, axis=0).repeat(times, axis=1)


def _simplified(ring: Ring, tolerance: float) -> Ring:
    simpler = cv2.approxPolyDP(ring.reshape(-1, 1, 2), 2 * tolerance, closed=True).reshape(-1, 2)
    return simpler.astype(np.int32) if len(simpler) >= 3 else ring


def _in_pixels(path: Ring) -> NDArray[np.float64]:
    pixels, side = np.divmod(path, 2)
    points: NDArray[np.float64] = pixels + np.where(side == 0, _INSET, 1 - _INSET)
    return points


def _joined(rings: Sequence[Ring]) -> Ring:
    """Join rings into one closed path: Prim's algorithm over the rings, splicing each in where it is nearest."""
    if len(rings) == 1:
        return rings[0]
    first = max(range(len(rings)), key=lambda i: (len(rings[i]), -i))
    points = np.concatenate(rings)
    starts = np.cumsum([0, *(len(ring) for ring in rings)])
    path = list(range(starts[first], starts[first + 1]))
    # for each ring not joined yet: squared length of its shortest bridge, the bridge's end there and its end here
    bridges = {i: _bridge(rings[i], rings[first], starts[i], starts[first]) for i in range(len(rings)) if i != first}
    while bridges:
        nearest = min(bridges, key=lambda i: (bridges[i][0], i))
        _, there, here = bridges.pop(nearest)
        around = [*range(there, starts[nearest + 1]), *range(starts[nearest], there)]
        at = path.index(here)
        path[at + 1 : at + 1] = [*around, there, here]
        for other, known in bridges.items():
            bridges[other] = min(known, _bridge(rings[other], rings[nearest], starts[other], starts[nearest]))
    joined: Ring = points[path]
    return joined


def _bridge(there: Ring, here: Ring, there_start: int, here_start: int) -> tuple[int, int, int]:
    """Return the squared length of the shortest bridge between two rings' points, and both ends' numbers."""
    apart = there[:, None, :].astype(np.int64) - here[None, :, :]
    lengths = (apart**2).sum(axis=2)
    end, start = np.unravel_index(int(lengths.argmin()), lengths.shape)
    return int(lengths[end, start]), int(there_start + end), int(here_start + start)
