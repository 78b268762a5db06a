"""From tokens to words: finds the columns of attention of each word, and turns the words' maps into evidence.

Shapes: see the legend in `labeling.attention`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch.nn import functional

from diffugen_api.words import Mention, Vocabulary
from diffugen_generator.families.finite import check_finite
from diffugen_generator.families.prompts import TokenizedPrompt
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.words import tokens_of

BORDER: Final = 0.4
"""The default of `threshold`."""


def mention_columns(read: Sequence[TokenizedPrompt], named: Sequence[Sequence[Mention]]) -> torch.Tensor:
    """Return [b, tokens, columns]: a column is the mean over the tokens of one mention, or 0.

    Args:
        read: the prompts; all have the same number of windows.
        named: the mentions of each prompt.
    """
    columns = torch.zeros(len(read), len(read[0].ids), max(1, *(len(each) for each in named)))
    for i, (each, found) in enumerate(zip(read, named, strict=True)):
        for column, mention in enumerate(found):
            positions = tokens_of(mention, each.spans)
            columns[i, positions, column] = 1 / max(1, len(positions))
    return columns


def with_all_words(columns: torch.Tensor, read: Sequence[TokenizedPrompt]) -> torch.Tensor:
    """Return `columns` [b, tokens, columns] with one more column: the sum over all tokens that are no marks."""
    words = torch.tensor([[float(begin < end) for begin, end in each.spans] for each in read])
    return torch.cat([columns, words[..., None]], dim=2)


def attribution_texts(
    states: torch.Tensor, columns: torch.Tensor, read: Sequence[TokenizedPrompt], token: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return texts in which `token` [width] takes the place of all marks, with their columns and their known states.

    `states` [b, tokens, width] are the prompts as the network reads them, `columns` those of `mention_columns`. The
    words keep their states, so they know the other words of their prompt. A token for what is no object is the
    attribution prompt of OVAM (Marcos-Manchón et al. 2024, arXiv 2403.14291). The result is [b, 1 + tokens, width],
    [b, 1 + tokens, columns] and [b, 1 + tokens], the token first.
    """
    first = token.to(states).expand(len(states), 1, -1)
    words = torch.tensor([[begin < end for begin, end in each.spans] for each in read], device=states.device)
    return (
        torch.cat([first, states], dim=1),
        functional.pad(columns, (0, 0, 1, 0)).to(states.device),
        functional.pad(words, (1, 0), value=True),
    )


def rescaled(maps: torch.Tensor) -> torch.Tensor:
    """Return maps [b, columns, h, w] divided, cell by cell, by the map of all words, which is the last one and dropped.

    A cell gives each word a share of the attention that it gives to words at all. Without this, cells that mostly
    attend to start and end marks have low values in every map (GoCA, Meng et al. 2026, arXiv 2603.06178).
    """
    return maps[:, :-1] / maps[:, -1:].clamp_min(1e-12)


def token_columns(
    read: Sequence[TokenizedPrompt], named: Sequence[Sequence[Mention]], tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a column for every token that is read, and the weights that join columns to mentions.

    The first is [b, tokens, columns] of zeros and ones. The second is [b, mentions, columns]: each mention is the mean
    of its tokens' columns. `tokens` is the length of the text that the network reads; no prompt is longer.
    """
    places = [[tokens_of(mention, each.spans) for mention in found] for each, found in zip(read, named, strict=True)]
    width = max(1, *(sum(len(positions) for positions in found) for found in places))
    columns = torch.zeros(len(read), tokens, width)
    groups = torch.zeros(len(read), max(1, *(len(found) for found in places)), width)
    for i, found in enumerate(places):
        column = 0
        for number, positions in enumerate(found):
            for position in positions:
                columns[i, position, column] = 1
                groups[i, number, column] = 1 / len(positions)
                column += 1
    return columns, groups


def recentred(maps: torch.Tensor, border: float | None) -> torch.Tensor:
    """Return maps in 0..1 on another scale: `border`, in 0..1, becomes `BORDER`; 0 and 1 stay; None changes nothing.

    So a calibrated border is part of the maps, and the default threshold means it.
    """
    if border is None:
        return maps
    above = BORDER + (maps - border) * (1 - BORDER) / (1 - border)
    return torch.where(maps < border, maps * (BORDER / border), above)


def evidence_of(
    vocabulary: Vocabulary, named: Sequence[Mention], maps: torch.Tensor, dtype: torch.dtype
) -> AttentionMaps:
    """Join the maps [mentions, h, w] in 0..1 of each word's mentions: the greatest value at each cell.

    Raises `SpecError` naming `run.dtype`, the network's `dtype`, if they are not finite.
    """
    check_finite(maps[: len(named)], "the attention maps", dtype)
    classes = tuple(name for name in vocabulary.classes if any(m.name == name and not m.background for m in named))
    background = tuple(word for word in vocabulary.background if any(m.name == word and m.background for m in named))
    joined = [
        torch.stack([maps[i] for i, m in enumerate(named) if m.name == name and m.background == behind]).amax(dim=0)
        for names, behind in ((classes, False), (background, True))
        for name in names
    ]
    levels = torch.stack(joined) if joined else maps[:0]
    return AttentionMaps(classes, background, levels.mul(255).round().to(torch.uint8).numpy())
