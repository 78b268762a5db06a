"""A word of textual inversion (Gal et al. 2022), which a family adds to its text encoders. No torch."""

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
    """[n, width] for each text encoder; n is the same for all."""

    @property
    def count(self) -> int:
        """The number of the word's vectors. In a prompt, the word takes the same number of tokens."""
        return len(self.vectors[0])
