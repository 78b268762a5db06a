"""Finds a dataset's words in a prompt: only classes that the prompt names get a label in its image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Final, NamedTuple


class Term(NamedTuple):
    """A word that names a class or the background. Terms are sorted in the order in which they are looked for."""

    rank: tuple[int, int, int]
    """The longer term first; of equally long ones that of the first class; of one class the first word."""
    word: str
    name: str
    """The class's name, or the background word."""
    background: bool


@dataclass(frozen=True)
class Vocabulary:
    """The words that name classes and the background."""

    classes: Mapping[str, Sequence[str]]
    """The words of each class; a term of two classes belongs to the first one."""
    background: Sequence[str] = field(default=())
    """Words for the background."""
    tokens: Sequence[str] = field(default=())
    """Tokens of textual inversion. Each is one word: `<car-accident>` does not name the class "car"."""
    further: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Further words of classes, as one prompt has them; of a class's words of one length they come first."""

    def terms_of(self, prompt: str) -> list[Term]:
        """Return the terms that `prompt` may contain, in the order in which they are looked for."""
        found = self._index.terms_of(prompt)
        if self.further:
            numbers = self._numbers
            for name, words in self.further.items():
                number = numbers.get(name, -1)
                found += [
                    Term((-len(word), number, place), word, name, background=False)
                    for place, word in enumerate(words, start=-len(words))
                    if number >= 0 and word.strip()
                ]
        return sorted(found)

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
        before = self.further
        further = {name: (*words.get(name, ()), *before.get(name, ())) for name in (*words, *before)}
        found = replace(self, further=further)
        # a dataset can have thousands of classes: what does not depend on `further` is made once for all prompts
        vars(found).update(_index=self._index, _numbers=self._numbers)
        return found

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}

    @cached_property
    def _index(self) -> _Index:
        classes = enumerate(self.classes.items())
        terms = [
            Term((-len(word), number, place), word, name, background=False)
            for number, (name, words) in classes
            for place, word in enumerate(words)
            if word.strip()
        ]
        last = len(self.classes)
        terms += [
            Term((-len(word), last, place), word, word, background=True)
            for place, word in enumerate(self.background)
            if word.strip()
        ]
        return _Index(terms)


class _Index:
    """Terms by how they begin, so that a prompt is compared with those of thousands whose begin it contains."""

    def __init__(self, terms: Iterable[Term]) -> None:
        self._by_begin: dict[str, list[Term]] = {}
        for term in terms:
            self._by_begin.setdefault(_folded(term.word.split()[0][:_BEGIN]), []).append(term)
        self._lengths = sorted({len(begin) for begin in self._by_begin})

    def terms_of(self, prompt: str) -> list[Term]:
        """Return the terms whose begin is anywhere in `prompt`."""
        text = _folded(prompt)
        begins = {text[at : at + length] for length in self._lengths for at in range(len(text) - length + 1)}
        if len(begins) > len(self._by_begin):
            return [term for begin, terms in self._by_begin.items() if begin in begins for term in terms]
        return [term for begin in begins for term in self._by_begin.get(begin, ())]


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
    for term in vocabulary.terms_of(prompt):
        for match in _pattern(term.word).finditer(prompt):
            begin, end = match.span()
            whole = all(end <= start or stop <= begin or (begin <= start and stop <= end) for start, stop in tokens)
            if whole and all(end <= other.begin or other.end <= begin for other in found):
                found.append(Mention(term.name, term.background, begin, end))
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


_BEGIN: Final = 4
"""The length of the begin of a term, in characters, by which it is found."""


def _folded(text: str) -> str:
    """Return a text of the same length that is equal for texts that `re.IGNORECASE` takes for equal."""
    return text.lower() if text.isascii() else "".join(map(_folded_character, text))


@lru_cache(maxsize=8192)
def _folded_character(character: str) -> str:
    # `re` compares lower cases, and takes for equal what has one upper case, such as the i with and without its dot
    return character.upper().lower().casefold()[0].replace("\u0131", "i")


@lru_cache(maxsize=8192)
def _pattern(word: str) -> re.Pattern[str]:
    pieces = r"\s+".join(re.escape(piece) for piece in word.split())
    before = "" if _UNSPACED.match(word[0]) else r"(?<!\w)"
    behind = "" if _UNSPACED.match(word[-1]) else r"(?!\w)"
    return re.compile(f"{before}{pieces}{behind}", re.IGNORECASE)
