"""Finds a dataset's words in a prompt: only classes that the prompt names get a label in its image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Final


@dataclass(frozen=True)
class Vocabulary:
    """The words that name classes and the background."""

    classes: Mapping[str, Sequence[str]]
    """The words of each class; a term of two classes belongs to the first one."""
    background: Sequence[str] = field(default=())
    """Words for the background."""
    tokens: Sequence[str] = field(default=())
    """Tokens of textual inversion. Each is one word: `<car-accident>` does not name the class "car"."""

    @cached_property
    def terms(self) -> list[tuple[re.Pattern[str], str, bool]]:
        """All terms as patterns, the longer first, each with its class or background word, and True for background."""
        terms = [(word, name, False) for name, words in self.classes.items() for word in words]
        terms += [(word, word, True) for word in self.background]
        terms.sort(key=lambda term: -len(term[0]))  # stable: of equal terms, that of the first class comes first
        return [(_pattern(word), name, background) for word, name, background in terms]

    @cached_property
    def token_pattern(self) -> re.Pattern[str]:
        """The pattern that finds the tokens."""
        return tokens_pattern(self.tokens)

    def words_inside(self, token: str) -> list[Mention]:
        """Return the classes and background words that `token` would name if it were not one word."""
        inside = mentions(token, replace(self, tokens=()))
        return [] if any((each.begin, each.end) == (0, len(token)) for each in inside) else inside

    def called(self, words: Mapping[str, Sequence[str]]) -> Vocabulary:
        """Return the vocabulary of a prompt where `words` are further words for objects of a class."""
        if not words:
            return self
        return replace(self, classes={name: (*words.get(name, ()), *own) for name, own in self.classes.items()})


@dataclass(frozen=True, slots=True)
class Mention:
    """One place where a prompt names a class or a background word."""

    name: str
    """The class's name, or the background word."""
    background: bool
    begin: int
    end: int
    """The place in the prompt: characters `begin` to `end`, the latter excluded."""


def mentions(prompt: str, vocabulary: Vocabulary) -> list[Mention]:
    """Return the places where `prompt` names classes and background words, from left to right, without overlaps.

    Whole words, any case, any white space between the words of a term. In scripts that are written without spaces, a
    term may stand anywhere. The longer term is used: a prompt with
    "sports car" does not name the class "car" there, if "sports car" is a term too. The same term in two classes
    belongs to the first class. A token of textual inversion is one word: no part of it names anything.
    """
    found: list[Mention] = []
    tokens = [each.span() for each in vocabulary.token_pattern.finditer(prompt)] if vocabulary.tokens else []
    for pattern, name, background in vocabulary.terms:
        for match in pattern.finditer(prompt):
            begin, end = match.span()
            whole = all(end <= start or stop <= begin or (begin <= start and stop <= end) for start, stop in tokens)
            if whole and all(end <= other.begin or other.end <= begin for other in found):
                found.append(Mention(name, background, begin, end))
    return sorted(found, key=lambda mention: mention.begin)


def tokens_pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds any of `tokens`: the longest first, in any case, and not inside a longer word."""
    before, behind = r"(?<!\w)", r"(?!\w)"
    apart = [
        before * token[0].isalnum() + re.escape(token) + behind * token[-1].isalnum()
        for token in sorted(tokens, key=len, reverse=True)
    ]
    return re.compile("|".join(apart), re.IGNORECASE)


_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese and Korean: no space need be between a word and its neighbors."""


@lru_cache(maxsize=8192)
def _pattern(word: str) -> re.Pattern[str]:
    pieces = r"\s+".join(re.escape(piece) for piece in word.split())
    before = "" if _UNSPACED.match(word[0]) else r"(?<!\w)"
    behind = "" if _UNSPACED.match(word[-1]) else r"(?!\w)"
    return re.compile(f"{before}{pieces}{behind}", re.IGNORECASE)
