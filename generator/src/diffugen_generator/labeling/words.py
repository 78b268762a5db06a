"""The tokens of the words that a prompt mentions."""

from __future__ import annotations

from collections.abc import Sequence

from diffugen_api.words import Mention


def tokens_of(mention: Mention, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return the positions of the tokens of a mention's characters; `spans` as in `TokenizedPrompt`."""
    return [
        position
        for position, (begin, end) in enumerate(spans)
        if begin < end and begin < mention.end and mention.begin < end
    ]
