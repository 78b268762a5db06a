"""How a picture looks, told from its pixels alone: whether it is blank, and what is alike to it. Without torch.

The hash is pHash as ImageHash has it (https://github.com/JohannesBuchner/imagehash): the signs of the 8x8 lowest
frequencies of the picture's brightness at 32x32, against their median. It is written out here, since the light image
that plan and publish run in has no SciPy; the tests hold it against the library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BLANK = 1.0
"""Deviation, of 255, below which a picture is blank: one colour, but for rounding."""

_SIDE, _LOWEST = 32, 8


@dataclass(frozen=True, slots=True)
class Looks:
    """What is kept of a picture's looks."""

    deviation: float
    """The greatest standard deviation of its three channels, in 0..127.5."""
    hash: str
    """Its perceptual hash: 16 hex digits."""

    @property
    def blank(self) -> bool:
        """Whether there is nothing in the picture, as where a safety filter blackened it."""
        return self.deviation < BLANK

    def row(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {"deviation": round(self.deviation, 2), "hash": self.hash}


def looks_of(picture: NDArray[np.uint8]) -> Looks:
    """Return the looks of `picture` [height, width, 3] sRGB."""
    deviation = max(float(picture[..., channel].std()) for channel in range(picture.shape[2]))
    grey = Image.fromarray(picture).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    basis = _cosines()
    spectrum = basis @ np.asarray(grey, np.float64) @ basis.T
    lowest = spectrum[:_LOWEST, :_LOWEST]
    bits = (lowest > np.median(lowest)).ravel()
    return Looks(deviation, f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}")


@cache
def _cosines() -> NDArray[np.float64]:
    """The discrete cosine transform of type II over 32 values, as SciPy scales it: [32, 32]."""
    k, n = np.arange(_SIDE)[:, None], np.arange(_SIDE)[None, :]
    return np.asarray(2 * np.cos(np.pi * k * (2 * n + 1) / (2 * _SIDE)))
