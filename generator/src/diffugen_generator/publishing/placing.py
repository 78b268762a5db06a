"""What only all samples together decide: which of them are near duplicates, and the split of each."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from diffugen_generator.publishing.splits import Splits, place_of
from diffugen_generator.quality.duplicates import Duplicates, Hashed


class Accepted(NamedTuple):
    """A sample that its own label accepts."""

    id: str
    root: str
    """The id of the first image of its family."""
    hash: str
    """The perceptual hash of its image, 16 hex digits; empty if there is none."""


class Placing:
    """The duplicates and the splits of a dataset. Memory: 24 bytes a sample, and what `Duplicates` takes."""

    def __init__(self, fractions: Mapping[str, float], max_distance: int | None, accepted: Iterable[Accepted]) -> None:
        """Place all samples.

        Args:
            fractions: the fraction of each split in its order, above 0; they add up to 1.
            max_distance: the most bits in which hashes of duplicates differ; None where duplicates are accepted.
            accepted: all samples that their labels accept, each once.
        """
        ids, places = bytearray(), array("Q")

        def hashed() -> Iterator[Hashed]:
            for each in accepted:
                ids.extend(bytes.fromhex(each.id))
                places.append(place_of(each.root))
                if each.hash:
                    yield Hashed(each.id, each.hash)

        self._duplicates = None
        if max_distance is not None:
            self._duplicates = Duplicates(hashed(), max_distance)
        else:
            deque(hashed(), maxlen=0)
        size = len(ids) // len(places) if places else 0
        kept = (
            place
            for number, place in enumerate(places)
            if not self.original_of(ids[number * size : (number + 1) * size].hex())
        )
        self._splits = Splits(fractions, kept if self._duplicates else places)

    def original_of(self, sample_id: str) -> str:
        """Return the id of the image that an accepted sample is a duplicate of; empty if it is none."""
        return self._duplicates.original_of(sample_id) if self._duplicates else ""

    def split_of(self, root: str) -> str:
        """Return the split of an image, by the id of the first image of its family."""
        return self._splits.of(root)
