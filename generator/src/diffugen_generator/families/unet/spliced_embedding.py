"""An embedding look-up with new rows after the model's own rows: the table is neither copied nor trained."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


class SplicedEmbedding(torch.nn.Module):
    """Looks up ids below `first` in the model's table, and the other ids in the new vectors."""

    def __init__(self, own: Any, vectors: torch.Tensor, first: int) -> None:
        """Add `vectors` [n, width] to `own`, the model's `torch.nn.Embedding`.

        `vectors` may be a parameter of another precision; the look-up returns them in the table's precision.
        """
        super().__init__()
        self.own = own
        self.first = first
        self.vectors = vectors

    @property
    def weight(self) -> torch.Tensor:
        """The model's own table; libraries read its device and precision."""
        table: torch.Tensor = self.own.weight
        return table

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the vectors [b, tokens, width] of ids [b, tokens]."""
        known = functional.embedding(ids.clamp(max=self.first - 1), self.own.weight)
        new = functional.embedding((ids - self.first).clamp(min=0), self.vectors.to(known.dtype))
        return torch.where((ids >= self.first)[..., None], new, known)
