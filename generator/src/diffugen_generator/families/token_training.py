"""The interface of a model for textual inversion: it has one new word, and only the word's vectors can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from diffugen_generator.families.model import DiffusionModel


@dataclass(frozen=True, slots=True)
class NormRange:
    """The range for the lengths of new vectors: two standard deviations around the vocabulary's mean."""

    low: float
    high: float

    @classmethod
    def of(cls, table: torch.Tensor) -> NormRange:
        """Return the range of a vocabulary [words, width]."""
        lengths = table.float().norm(dim=1)
        mean, deviation = float(lengths.mean()), float(lengths.std())
        return cls(max(mean - 2 * deviation, 0.0), mean + 2 * deviation)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence as the text encoders read it: token ids [limit] for each encoder."""

    ids: tuple[tuple[int, ...], ...]


class TokenModel(Protocol):
    """A frozen model with one new word: its vectors are the only parameters."""

    @property
    def taught(self) -> DiffusionModel:
        """The model with the current vectors of the word, for drawing."""
        ...

    @property
    def vectors(self) -> Sequence[torch.nn.Parameter]:
        """[n, width] in fp32 for each text encoder."""
        ...

    @property
    def norms(self) -> Sequence[NormRange]:
        """The range of the vectors' lengths for each text encoder."""
        ...

    @property
    def training_steps(self) -> int:
        """The number of timesteps of the model's noise schedule."""
        ...

    def close(self) -> None:
        """Restore the model's own embedding look-up."""
        ...

    def latents(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Return the scaled latents [n, c, h, w] of images [height, width, 3] of one size."""
        ...

    def sentences(self, texts: Sequence[str]) -> list[Sentence]:
        """Return sentences as ids; raise `SpecError` if one is too long for one window of the text encoder."""
        ...

    def loss(
        self,
        latents: torch.Tensor,
        noise: torch.Tensor,
        steps: torch.Tensor,
        sentences: Sequence[Sentence],
        masks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return each row's mean squared error [b] of the model's prediction, with gradients for the vectors.

        Args:
            latents: [b, c, h, w] scaled, in fp32.
            noise: standard normal, of the same shape.
            steps: [b] timesteps of the noise schedule.
            sentences: the sentence of each row.
            masks: [b, 1, h, w] in 0..1, the weight of each cell; if absent, all cells have the same weight.
        """
        ...

    def keep_norms(self) -> None:
        """Scale vectors whose length is outside the vocabulary's range back to the border of the range."""
        ...
