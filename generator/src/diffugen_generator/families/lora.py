"""A LoRA (Hu et al. 2021) that a family adds to the weights of its networks. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of a file's tensors, by their names."""


@dataclass(frozen=True, slots=True)
class Lora:
    """A file of low-rank matrices, and the factor of what they add."""

    uri: str
    path: Path
    weight: float
