"""Combinations of a template's values: all of them, zipped lists, or a seeded sample.

A sample is drawn one by one and by hash, without a list of all combinations. So with twenty variables of twenty values
each it takes as long as with two. It is stable: a larger sample begins with the smaller one. A value that is appended
to its list changes about one in n combinations, because a jump consistent hash chooses the values and not a remainder.
So nearly all images stay the same.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Literal

Combine = Literal["product", "zip"]


class UnequalLengthsError(ValueError):
    """Variables that cannot be zipped: the first one, and the first one of another length."""

    def __init__(self, first: str, other: str) -> None:
        """Keep both names."""
        super().__init__(f"{first} and {other} have different numbers of values")
        self.first, self.other = first, other


def check(fields: Sequence[str], variables: Mapping[str, Sequence[str]], combine: Combine) -> None:
    """Raise `UnequalLengthsError` if `fields` are to be zipped and have different lengths."""
    for field in fields[1:] if combine == "zip" else ():
        if len(variables[field]) != len(variables[fields[0]]):
            raise UnequalLengthsError(fields[0], field)


def count(
    fields: Sequence[str], variables: Mapping[str, Sequence[str]], combine: Combine, sample: int | None = None
) -> int:
    """Return how many combinations `combinations` yields."""
    everything = math.prod(_sides(fields, variables, combine))
    return everything if sample is None else min(sample, everything)


def combinations(
    fields: Sequence[str],
    variables: Mapping[str, Sequence[str]],
    combine: Combine,
    *,
    sample: int | None = None,
    origin: bytes = b"",
) -> Iterator[dict[str, str]]:
    """Yield the values of `fields`: all combinations in the written order, or `sample` of them chosen by `origin`."""
    sides = _sides(fields, variables, combine)
    everything = sample is None or sample >= math.prod(sides)
    places = product(*map(range, sides)) if everything else _sampled(sides, sample or 0, origin)
    for place in places:
        each = place * len(fields) if combine == "zip" else place
        yield {field: variables[field][at] for field, at in zip(fields, each, strict=True)}


def _sides(fields: Sequence[str], variables: Mapping[str, Sequence[str]], combine: Combine) -> list[int]:
    """Return the numbers of choices: one for each field, or one for the rows that zip makes of all fields."""
    lengths = [len(variables[field]) for field in fields]
    return lengths[:1] if combine == "zip" else lengths


def _sampled(sides: Sequence[int], sample: int, origin: bytes) -> Iterator[tuple[int, ...]]:
    """Yield `sample` different combinations of indices; there must be more than `sample` of them."""
    seen: set[tuple[int, ...]] = set()
    draw = 0
    while len(seen) < sample:
        place = tuple(_jump(key, side) for key, side in zip(_keys(origin, draw, len(sides)), sides, strict=True))
        draw += 1
        if place not in seen:
            seen.add(place)
            yield place


def _keys(origin: bytes, draw: int, count: int) -> Sequence[int]:
    """Return `count` numbers of 64 bits for one draw."""
    digest = hashlib.shake_128(origin + b":%d" % draw).digest(8 * count)
    return [int.from_bytes(digest[at : at + 8], "big") for at in range(0, 8 * count, 8)]


def _jump(key: int, buckets: int) -> int:
    """Return one of `buckets`; it nearly always stays the same when a bucket is appended.

    Jump consistent hash (Lamping & Veach 2014, "A fast, minimal memory, consistent hash algorithm").
    """
    here, following = -1, 0
    while following < buckets:
        here = following
        key = (key * 2862933555777941757 + 1) % 2**64
        following = int((here + 1) * (2**31 / ((key >> 33) + 1)))
    return here
