"""Checks COCO's compressed run-length encoding before pycocotools decodes it.

pycocotools (`rleFrString`, `rleDecode` in maskApi.c) does not check its input: runs that exceed the size write beyond
the array. Format: each run length is a little-endian sequence of characters from "0". Each character has five bits, and
a sixth bit that means "more follows". From the fourth run on, each run is stored as the difference from the run two
places before it.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np

MOST_SIDE = 65_536
"""The most pixels of a side."""
MOST_PIXELS = 1 << 27
"""The most pixels of a mask: twice the 64 megapixels that an image may have."""

_MORE, _SIGN, _BITS, _LONGEST = 0x20, 0x10, 0x1F, 7
"""The flags of a character, its five bits of value, and the most characters of a run."""
_ZERO = ord("0")
_FEW = 512
"""Characters up to which a loop is faster than arrays."""
_NOT_ONE = "counts: not a run-length encoding"
_CUT = "counts: the last run is cut off"
_TOO_LONG = "counts: a run is too long"


def area_of(size: tuple[int, int], counts: str) -> int:
    """Return the number of pixels in a mask of `size`, height and width; raise `ValueError` if it is not valid."""
    height, width = size
    if not (0 < height <= MOST_SIDE and 0 < width <= MOST_SIDE and height * width <= MOST_PIXELS):
        raise ValueError(f"size: [{height}, {width}] is out of range")
    runs = runs_of(counts)
    if min(runs) < 0 or sum(runs) != height * width:
        raise ValueError(f"counts: the runs do not fill a mask of {height} x {width} pixels")
    return sum(runs[1::2])


def runs_of(counts: str) -> list[int]:
    """Return the lengths of the runs, of background and object in turn; raise `ValueError` for other text."""
    return _few(counts) if len(counts) <= _FEW else _many(counts)


def _few(counts: str) -> list[int]:
    """`runs_of` for a short text."""
    codes = counts.encode("ascii", "replace")
    if not codes or min(codes) < _ZERO or max(codes) > _ZERO + (_MORE | _BITS):
        raise ValueError(_NOT_ONE)
    runs: list[int] = []
    value = shift = 0
    for code in codes:
        if not shift and code < _ZERO + _MORE:  # a run of one character, as most are
            runs.append(code - _ZERO - ((code - _ZERO & _SIGN) << 1))
            continue
        bits = code - _ZERO
        value |= (bits & _BITS) << shift
        shift += 5
        if bits & _MORE:
            continue
        if shift > 5 * _LONGEST:
            raise ValueError(_TOO_LONG)
        runs.append(value - ((bits & _SIGN) << shift - 4))
        value = shift = 0
    if shift:
        raise ValueError(_CUT)
    runs[2::2] = accumulate(runs[2::2])  # differences start at the fourth run; the third is stored as it is
    runs[1::2] = accumulate(runs[1::2])
    return runs


def _many(counts: str) -> list[int]:
    """`runs_of` for a long text."""
    characters = np.frombuffer(counts.encode("ascii", "replace"), np.uint8).astype(np.int64) - _ZERO
    last = np.flatnonzero((characters & _MORE) == 0)  # the last character of each run
    if not len(characters) or (characters < 0).any() or (characters > _MORE | _BITS).any():
        raise ValueError(_NOT_ONE)
    if not len(last) or last[-1] != len(characters) - 1:
        raise ValueError(_CUT)
    first = np.concatenate([[0], last[:-1] + 1])
    length = last - first + 1
    if length.max() > _LONGEST:
        raise ValueError(_TOO_LONG)
    place = np.arange(len(characters)) - np.repeat(first, length)
    values = np.add.reduceat((characters & _BITS) << (5 * place), first)
    negative = (characters[last] & _SIGN) != 0
    values = np.where(negative, values - (np.int64(1) << (5 * length)), values)
    values[2::2] = np.cumsum(values[2::2])
    values[1::2] = np.cumsum(values[1::2])
    runs: list[int] = values.tolist()
    return runs
