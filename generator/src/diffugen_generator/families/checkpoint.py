"""A checkpoint in a single file, as a family reads it: the header of its file, and the folder that it stands for.

No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Prediction = Literal["epsilon", "v_prediction"]
"""What a network predicts: the noise, or the velocity (Salimans and Ho 2022)."""
PREDICTIONS: Final[tuple[Prediction, ...]] = get_args(Prediction)


@dataclass(frozen=True, slots=True)
class CheckpointHeader:
    """What a file states about its tensors."""

    shapes: Mapping[str, tuple[int, ...]]
    """The shape of each tensor, by name."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The text beside the tensors; empty for a `.ckpt` file."""


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """The folder of diffusers that a checkpoint stands for, without its weights."""

    pipeline: str
    """The class of its pipeline."""
    files: Mapping[str, bytes]
    """Its settings and tokenizers, by their names in the folder."""
