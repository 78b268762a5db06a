"""A prompt as a family's tokenizer reads it. No torch."""

from __future__ import annotations

from dataclasses import dataclass

NO_PIECE = -1
"""The piece of marks and padding."""


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """One prompt as input of the text encoder: `windows` times `limit` tokens, window after window."""

    windows: int
    ids: tuple[int, ...]
    """[windows * limit]; each window has start mark, words, end mark, padding."""
    mask: tuple[int, ...]
    """[windows * limit]; 0 for padding."""
    spans: tuple[tuple[int, int], ...]
    """[windows * limit]; begin and end of each token in the prompt's plain text, equal for marks and padding."""
    pieces: tuple[int, ...]
    """[windows * limit]; the index of the prompt's piece to which each token belongs."""
