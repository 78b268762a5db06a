"""Prompts with weights: what people write, read into one form, text and weight piece by piece."""

from __future__ import annotations

from typing import NamedTuple


class Piece(NamedTuple):
    """A piece of a prompt, and how much it counts."""

    text: str
    weight: float
    """1 is as written; 0 is as if it were not there."""


Prompt = str | tuple[Piece, ...]
"""A plain text, or the pieces that it was read into."""


def pieces_of(prompt: Prompt) -> tuple[Piece, ...]:
    """Return a prompt's pieces: a plain text is one, of weight 1."""
    return (Piece(prompt, 1.0),) if isinstance(prompt, str) else prompt


def plain(prompt: Prompt) -> str:
    """Return a prompt's text without what was written to weight it."""
    return prompt if isinstance(prompt, str) else "".join(piece.text for piece in prompt)


def unweighted(prompt: Prompt) -> Prompt:
    """Return a prompt in the same pieces, so that it has the same tokens, all of weight 1."""
    return prompt if isinstance(prompt, str) else tuple(Piece(piece.text, 1.0) for piece in prompt)
