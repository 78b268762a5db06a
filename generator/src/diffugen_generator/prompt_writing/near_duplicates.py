"""Finds texts that nearly repeat an earlier one: by the words that they share.

A text is the set of its words in lower case, without a few words that every sentence has. Two texts are near duplicates
if the Jaccard index of their sets, |A and B| / |A or B|, is at least a threshold. The search is exact and fast: two
sets that are so similar share a word among the first |A| - ceil(threshold |A|) + 1 words of each, in any one order of
all words (prefix filtering; Bayardo, Ma & Srikant 2007, "Scaling up all pairs similarity search"). Only texts with such
a word in common are compared.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Final

THRESHOLD: Final = 0.8
_WORD: Final = re.compile(r"\w+")
_EVERYWHERE: Final = frozenset(
    ["a", "an", "and", "are", "as", "at", "by", "for", "from", "in", "is", "it", "its", "of", "on", "the", "to", "with"]
)


class NearDuplicates:
    """The texts so far."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        """Call texts near duplicates from the Jaccard index `threshold`, above 0 and at most 1."""
        self._threshold = threshold
        self._known: list[frozenset[str]] = []
        self._by_word: dict[str, list[int]] = {}

    def add(self, text: str) -> bool:
        """Add a text and return True; if it is a near duplicate of one before it, return False."""
        words = words_of(text)
        prefix = self._prefix(words)
        candidates = {number for word in prefix for number in self._by_word.get(word, ())}
        if any(jaccard(words, self._known[number]) >= self._threshold for number in candidates):
            return False
        for word in prefix:
            self._by_word.setdefault(word, []).append(len(self._known))
        self._known.append(words)
        return True

    def _prefix(self, words: frozenset[str]) -> list[str]:
        count = len(words) - math.ceil(self._threshold * len(words)) + 1
        return sorted(words, key=_place)[:count] if words else [""]


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text that count."""
    return frozenset(_WORD.findall(text.lower())) - _EVERYWHERE


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the Jaccard index of two sets, in 0..1; two empty sets are equal."""
    return len(one & other) / len(one | other) if one or other else 1.0


def _place(word: str) -> bytes:
    """Return the place of a word in the order of all words."""
    return hashlib.blake2b(word.encode(), digest_size=8).digest()
