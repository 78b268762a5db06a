"""Checks COCO's compressed run-length encoding before pycocotools decodes it.

pycocotools (`rleFrString`, `rleDecode` in maskApi.c) does not check its input: runs that exceed the size write beyond
the array. Format: each run length is a little-endian sequence of characters from "0". Each character has five bits, and
a sixth bit that means "more follows". From the fourth run on, each run is stored as the difference from the run two
places before it.
"""

from __future__ import annotations

import re
from itertools import accumulate

MOST_SIDE = 65_536
"""The most pixels of a side."""
MOST_PIXELS = 1 << 27
"""The most pixels of a mask: twice the 64 megapixels that an image may have."""

_ZERO = ord("0")
_MORE, _SIGN, _BITS, _LONGEST = 0x20, 0x10, 0x1F, 7
"""The flags of a character, its five bits of value, and the most characters of a run."""
_SHORT = 3
"""The most characters of a run whose number is kept: there are 33,824 such runs."""
_CHARACTERS = bytes(range(_ZERO, _ZERO + (_MORE | _BITS) + 1))
_RUN = re.compile(rb"[P-o]*[0-O]")
"""The characters of a run: those with more to follow, and the last one."""
_TOO_LONG = re.compile(rb"[P-o]{%d}" % _LONGEST)


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
    codes = counts.encode("utf-8", "surrogatepass")
    if not codes or codes.translate(None, _CHARACTERS):
        raise ValueError("counts: not a run-length encoding")
    if codes[-1] >= _ZERO + _MORE:
        raise ValueError("counts: the last run is cut off")
    if _TOO_LONG.search(codes):
        raise ValueError("counts: a run is too long")
    runs = list(map(_VALUES.__getitem__, _RUN.findall(codes)))
    runs[2::2] = accumulate(runs[2::2])  # differences start at the fourth run; the third is stored as it is
    runs[1::2] = accumulate(runs[1::2])
    return runs


class _Values(dict[bytes, int]):
    """The numbers of runs by their characters; those of short ones are kept."""

    def __missing__(self, text: bytes) -> int:
        value = -1 if text[-1] - _ZERO & _SIGN else 0
        for code in reversed(text):
            value = value << 5 | code - _ZERO & _BITS
        if len(text) <= _SHORT:
            self[text] = value
        return value


_VALUES = _Values()
