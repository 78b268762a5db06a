"""What a reply of a chat model must be, to become a prompt."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from diffugen_api.prompt_weights import WeightError, read
from diffugen_api.words import Vocabulary, mentions

MOST_CHARACTERS: Final = 600
"""The longest prompt that is taken from a reply; a longer one is no caption."""
NO_CLASS: Final = "names no asked class"
UNUSABLE: Final = "is no plain sentence"
NEAR_DUPLICATE: Final = "repeats another prompt"

_THINKING: Final = re.compile(r"\A.*</think(?:ing)?>|<think(?:ing)?>.*\Z", re.DOTALL | re.IGNORECASE)
"""The thoughts of a reasoning model, up to their last end; thoughts without an end are the rest of the reply."""
_BEGIN: Final = re.compile(
    r"^(?:[-*•#>]+\s*|\d{1,3}[.)]\s+|(?:caption|prompt|description|image|photo)\s*(?:\d{1,3})?\s*:\s*)+", re.IGNORECASE
)
_INTRODUCTION: Final = re.compile(
    r"^(?:(?:sure|certainly|of course|absolutely|okay|ok)\b[!,.: ]*)?(?:here(?:['’]s| is| are)\b[^:\"“]{0,200}:\s*)?",
    re.IGNORECASE,
)
"""What some models say before the caption: `Sure! Here is a caption for a photo of a car:`."""
_QUOTES: Final = "\"'`“”‘’*_ "


@dataclass(frozen=True, slots=True)
class Judged:
    """A reply: the prompt in it, or why there is none."""

    prompt: str
    named: frozenset[str]
    """The classes that it names."""
    fault: str = ""
    """`NO_CLASS`, `UNUSABLE`, or empty."""


def judged(reply: str, asked: Collection[str], vocabulary: Vocabulary) -> Judged:
    """Return the prompt in a reply that was asked to name the classes `asked`."""
    prompt = prompt_in(reply)
    named = frozenset(mention.name for mention in mentions(prompt, vocabulary))
    if not named.issuperset(asked):
        return Judged(prompt, named, NO_CLASS)
    if not _is_plain(prompt):
        return Judged(prompt, named, UNUSABLE)
    return Judged(prompt, named)


def prompt_in(reply: str) -> str:
    """Return the first line with text, without thoughts, introduction, list marks, title and quotes."""
    text = _THINKING.sub(" ", reply)
    for line in text.splitlines():
        found = line.strip()
        while (shorter := _INTRODUCTION.sub("", _BEGIN.sub("", found)).strip(_QUOTES)) != found:
            found = shorter
        if found:
            return " ".join(found.split())
    return ""


def _is_plain(prompt: str) -> bool:
    """Return whether a prompt is drawn as it is written: no weights, no signs of other programs, not too long."""
    if len(prompt) > MOST_CHARACTERS or not prompt.isprintable() or "<" in prompt:
        return False
    try:
        return read(prompt, "auto") == prompt
    except WeightError:
        return False
