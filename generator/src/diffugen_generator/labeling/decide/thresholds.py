"""`threshold: auto`: for each word of each image, the threshold whose outline fits the image best.

Several thresholds are tried. The best one has the outline along which the image changes most. The measure is the mean
gradient of the image's colors times the fourth root of the outline's length, so that a few pixels on a sharp edge do
not win. Compared with threshold 0.4 and with Otsu's method on the maps' histograms, this method came closest to the
oracle. One threshold for each class, from all images, was not better and would make a label depend on other images.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

TRIED: Final = tuple(round(0.2 + 0.05 * step, 2) for step in range(13))
"""The thresholds that are tried: 0.2 to 0.8."""
FALLBACK: Final = 0.4
"""The threshold if no outline exists: the map has the same value everywhere."""


def thresholds_of(maps: NDArray[np.float32], winner: NDArray[np.intp], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a threshold for each map [words].

    Args:
        maps: [words, height, width] in 0..1.
        winner: [height, width]; the word whose map is greatest.
        image: [height, width, 3] sRGB.
    """
    change = _change(image)
    return np.array([_best(each, winner == index, change) for index, each in enumerate(maps)], np.float32)


def _change(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how fast the colors change at each pixel: [height, width]."""
    pixels = image.astype(np.float32)
    across, down = cv2.Sobel(pixels, cv2.CV_32F, 1, 0), cv2.Sobel(pixels, cv2.CV_32F, 0, 1)
    return np.asarray(np.hypot(across, down).sum(axis=2), np.float32)


def _best(values: NDArray[np.float32], own: NDArray[np.bool_], change: NDArray[np.float32]) -> float:
    brush = np.ones((3, 3), np.uint8)
    best, found = -1.0, FALLBACK
    for threshold in TRIED:
        inside = ((values >= threshold) & own).astype(np.uint8)
        outline = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, brush) > 0
        length = int(outline.sum())
        if length and (fit := float(change[outline].mean()) * length**0.25) > best:
            best, found = fit, threshold
    return found
