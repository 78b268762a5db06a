"""Which split an image is in: exact fractions over whole families of images.

A family is an image that was drawn from text alone, and all images that were drawn from it. It is never divided, so no
split has a derivative of another split's image. The number of families of each split is the method of the largest
remainder: the fraction of all accepted families, rounded so that the numbers add up. A split that is asked for has at
least one family if there are as many families as splits.

Which families these are follows from their ids: they are sorted by a hash, and the splits are consecutive parts of that
order. So when a dataset grows, only families next to a border can move to a neighboring split: about the square root
of the number of families, however many are added.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping

import numpy as np

_END = 1 << 64
"""Above every place."""


def place_of(root: str) -> int:
    """Return the place of a family in the order of all, in 0..2**64-1, by the id of its first image."""
    return int.from_bytes(hashlib.sha256(b"split:" + root.encode()).digest()[:8], "big")


class Splits:
    """The borders between the splits."""

    def __init__(self, fractions: Mapping[str, float], places: Iterable[int]) -> None:
        """Find the borders.

        Args:
            fractions: the fraction of each split in its order, above 0; they add up to 1.
            places: the places of the accepted families; one place may come more than once.
        """
        self._names = list(fractions)
        families = np.unique(np.fromiter(places, np.uint64))
        ends = np.cumsum(counts_of(list(fractions.values()), len(families)))[:-1]
        self._borders = [int(families[end]) if end < len(families) else _END for end in ends]

    def of(self, root: str) -> str:
        """Return the split of an image, by the id of the first image of its family."""
        return self._names[bisect_right(self._borders, place_of(root))]


def counts_of(fractions: list[float], families: int) -> list[int]:
    """Return how many of `families` each split gets."""
    shares = [fraction * families for fraction in fractions]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda number: (counts[number] - shares[number], number))
    for number in by_remainder[: families - sum(counts)]:
        counts[number] += 1
    if families >= len(fractions):
        while 0 in counts:
            counts[counts.index(max(counts))] -= 1
            counts[counts.index(0)] += 1
    return counts
