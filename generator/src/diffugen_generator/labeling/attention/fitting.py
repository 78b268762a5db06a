"""Resizes images of any size for a model that did not draw them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

STEP = 8
"""Sides are whole multiples of this number of pixels: a latent cell of Stable Diffusion."""


def fitted(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return `image` [height, width, 3] with about as many pixels as a square of `side`, in the same proportions.

    A model works best at the size that it was trained at. Both sides are multiples of 8, so each side differs from the
    exact proportions by at most 4 pixels. When labels are decided, the maps are stretched back.
    """
    height, width = image.shape[:2]
    scale = (side * side / (height * width)) ** 0.5
    size = (max(STEP, round(width * scale / STEP) * STEP), max(STEP, round(height * scale / STEP) * STEP))
    if size == (width, height):
        return image
    smaller = size[0] * size[1] < width * height
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return np.asarray(resized, np.uint8)
