"""Statistics of an image's pixels: how much they vary, and a perceptual hash. Without torch.

The hash is pHash as ImageHash computes it (https://github.com/JohannesBuchner/imagehash): the signs of the 8x8 lowest
frequencies of the image's brightness at 32x32, relative to their median. It is written here because the container
image of plan and publish has no SciPy. The tests compare it with the library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BLANK = 1.0
"""Deviation, of 255, below which an image is blank: one color, apart from rounding."""

_SIDE, _LOWEST = 32, 8


@dataclass(frozen=True, slots=True)
class ImageStatistics:
    """The statistics of one image that its label file keeps."""

    deviation: float
    """The greatest standard deviation of the three channels, in 0..127.5."""
    hash: str
    """The perceptual hash: 16 hex digits."""

    def row(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {"deviation": round(self.deviation, 2), "hash": self.hash}


def statistics_of(image: NDArray[np.uint8]) -> ImageStatistics:
    """Return the statistics of `image` [height, width, 3] sRGB."""
    deviation = max(float(image[..., channel].std()) for channel in range(image.shape[2]))
    grey = Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    basis = _cosines()
    spectrum = basis @ np.asarray(grey, np.float64) @ basis.T
    lowest = spectrum[:_LOWEST, :_LOWEST]
    bits = (lowest > np.median(lowest)).ravel()
    return ImageStatistics(deviation, f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}")


@cache
def _cosines() -> NDArray[np.float64]:
    """The discrete cosine transform of type II over 32 values, as SciPy scales it: [32, 32]."""
    k, n = np.arange(_SIDE)[:, None], np.arange(_SIDE)[None, :]
    return np.asarray(2 * np.cos(np.pi * k * (2 * n + 1) / (2 * _SIDE)))
