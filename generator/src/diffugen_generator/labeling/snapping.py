"""Settling uncertain pixels by the picture's colours.

Attention is coarse: a cell of 16 x 16 stands for 4 or 32 pixels. Around each object lies a band of which the
maps cannot tell; there the picture can. (to be written)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNCERTAIN = -2


def snapped(owners: NDArray[np.int32], image: NDArray[np.uint8], *, fallback: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.where(owners == UNCERTAIN, fallback, owners)
