"""Where the words that a prompt names went among its tokens."""

from __future__ import annotations

from collections.abc import Sequence

from diffugen_api.words import Mention, Vocabulary, mentions

__all__ = ["Mention", "Vocabulary", "mentions", "tokens_of"]


def tokens_of(mention: Mention, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return the positions of the tokens that a mention's characters went into; `spans` as in `TokenizedPrompt`."""
    return [
        position
        for position, (begin, end) in enumerate(spans)
        if begin < end and begin < mention.end and mention.begin < end
    ]
