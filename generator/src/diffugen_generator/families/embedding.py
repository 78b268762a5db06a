"""A word that textual inversion taught (Gal et al. 2022), as a family adds it to its text encoders. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Embedding:
    """A word, and its vectors for each text encoder."""

    token: str
    vectors: tuple[Vectors, ...]
    """[n, width] for each text encoder; equally many for all."""

    @property
    def count(self) -> int:
        """How many vectors, and so tokens of a prompt, the word takes."""
        return len(self.vectors[0])
