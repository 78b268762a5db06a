"""Scores of whole images: one number by a model, in the form that the store keeps. Without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from diffugen_generator.labeling.evidence.npz import arrays_in, npz_of


@dataclass(frozen=True)
class Score:
    """One number about an image."""

    value: float
    entry: ClassVar[str]
    """The name of the number in its file."""

    def dumps(self, sample_id: str = "") -> bytes:
        """Return an npz file: the same bytes for the same score of the same sample."""
        arrays: dict[str, Any] = {self.entry: np.float64(round(self.value, 6))}
        return npz_of(arrays, sample_id)

    @classmethod
    def loads(cls, data: bytes, sample_id: str = "") -> Self:
        """Read the npz file of a sample; raise `ValueError` if it is damaged or another sample's."""
        with arrays_in(data, f"a score of an image's {cls.entry}", sample_id) as arrays:
            value = float(arrays[cls.entry])
            if not math.isfinite(value):
                raise ValueError("it is not finite")
            return cls(value)


class Fit(Score):
    """How well an image fits its prompt, by CLIP: the cosine of the two embeddings, in -1..1."""

    entry = "cosine"


class Margin(Score):
    """How far an image is beyond the threshold of the concept that it exceeds most, by a safety checker.

    In -2..2, to three digits; above 0 the checker flags it.
    """

    entry = "margin"
