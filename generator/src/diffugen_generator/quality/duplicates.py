"""Near duplicates: of images with similar perceptual hashes, the first by sample id is kept.

Greedy, in the order of the ids: an image is a duplicate if a kept image is within the distance. So the result
depends on the images alone, not on the order of the spec or of the work.

Hashes of distance d or less agree in at least one of d + 1 disjoint parts of their 64 bits (the pigeonhole
principle). So only hashes that share a part are compared: a table for each part maps its bits to the kept images.
Memory is 24 bytes an image and 8 for each part.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

BITS = 64


@dataclass(frozen=True, slots=True)
class Hashed:
    """An image's sample id, 32 hex digits, and its perceptual hash, 16."""

    id: str
    hash: str


class Duplicates:
    """The duplicates among images."""

    def __init__(self, images: Iterable[Hashed], most: int) -> None:
        """Find all images whose hash differs in at most `most` bits from the hash of a kept image."""
        ids, hashes = _sorted(images)
        first = _first_alike(hashes, most)
        self._originals = {ids[place].tobytes(): ids[first[place]].tobytes() for place in np.flatnonzero(first >= 0)}

    def __len__(self) -> int:
        """Return how many images are duplicates."""
        return len(self._originals)

    def original_of(self, sample_id: str) -> str:
        """Return the id of the image that `sample_id` is a duplicate of; empty if it is no duplicate."""
        original: bytes = self._originals.get(bytes.fromhex(sample_id), b"")
        return original.hex()


def _sorted(images: Iterable[Hashed]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return ids [n, 2], the more significant half first, and hashes [n], in the order of the ids."""
    ids, hashes = bytearray(), array("Q")
    for each in images:
        ids += bytes.fromhex(each.id)
        hashes.append(int(each.hash, 16))
    halves = np.frombuffer(bytes(ids), ">u8").reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    return halves[order], np.array(hashes, np.uint64)[order]


def _first_alike(hashes: NDArray[np.uint64], most: int) -> NDArray[np.int64]:
    """Return, for each hash, the index of the first kept one within `most` bits, or -1 if it is kept itself."""
    first = np.full(len(hashes), -1, np.int64)
    tables: list[dict[int, array[int]]] = [{} for _ in range(most + 1)]
    for place, value in enumerate(hashes.tolist()):
        parts = list(_parts(value, most + 1))
        near = [table[part] for table, part in zip(tables, parts, strict=True) if part in table]
        alike = [one for candidates in near for one in _within(hashes, candidates, value, most)]
        if alike:
            first[place] = min(alike)
            continue
        for table, part in zip(tables, parts, strict=True):
            table.setdefault(part, array("q")).append(place)
    return first


def _within(hashes: NDArray[np.uint64], candidates: array[int], value: int, most: int) -> list[int]:
    places = np.frombuffer(candidates, np.int64)
    close = np.bitwise_count(hashes[places] ^ np.uint64(value)) <= most
    return [int(place) for place in places[close]]


def _parts(value: int, count: int) -> Iterator[int]:
    """Yield `count` disjoint parts of the 64 bits of `value`, as even as can be."""
    bounds = [BITS * number // count for number in range(count + 1)]
    for low, high in pairwise(bounds):
        yield (value >> low) & ((1 << (high - low)) - 1)
