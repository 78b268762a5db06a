"""Decides uncertain pixels by the image's colors.

Attention is coarse: the side of a cell of 16 x 16 covers 4 pixels of 64, or 32 of 512. Around each object there is a
band in which the maps are uncertain; there the image decides. A graph cut (GrabCut, Rother et al. 2004) learns the
colors of the certain inside and of the certain outside. It finds the border with the least cost, which follows edges.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

LONGEST: Final = 256
"""The longer side in pixels at which cuts are made: 0.07 s each on one core. A cut of 512 x 512 takes 0.4 s.
"""

ROUNDS: Final = 2
"""How often the colors are learnt and the border is drawn; more rounds change nothing."""

_COMPONENTS: Final = 65
"""The number of values of a GrabCut color model: five Gaussians of 13 values each."""


def snapped(
    image: NDArray[np.uint8],
    *,
    inside: NDArray[np.bool_],
    outside: NDArray[np.bool_],
    likely: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Return which pixels of `image` belong to an object: [height, width].

    Args:
        image: [height, width, 3] sRGB.
        inside: [height, width]; pixels that certainly belong to the object.
        outside: [height, width]; pixels that certainly do not belong to the object.
        likely: [height, width]; the first guess for uncertain pixels. It is also the result if one of the two sides has
            no certain pixel, because then there are no colors to learn from.
    """
    height, width = inside.shape
    scale = min(1.0, LONGEST / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    marks = np.where(likely, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    marks[outside] = cv2.GC_BGD
    marks[inside] = cv2.GC_FGD
    small = np.asarray(cv2.resize(marks, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    guess = (likely | inside) & ~outside
    if not ((small == cv2.GC_FGD).any() and (small == cv2.GC_BGD).any()):
        return guess
    if not np.isin(small, (cv2.GC_PR_FGD, cv2.GC_PR_BGD)).any():
        return guess
    cut = _cut(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), small)
    grown = cv2.resize(cut.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) >= 0.5
    return np.asarray((grown | inside) & ~outside)


def _cut(image: NDArray[np.uint8], marks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Cut `image` [h, w, 3] by `marks` [h, w]; the same cut for the same input, in every thread."""
    cv2.setRNGSeed(0)  # GrabCut starts with a k-means of random centres; each thread has its own generator
    behind, front = np.zeros((1, _COMPONENTS)), np.zeros((1, _COMPONENTS))
    # With GC_INIT_WITH_MASK the rectangle is not read; the result is written to `marks`.
    found, *_ = cv2.grabCut(image, marks.copy(), (0, 0, 1, 1), behind, front, ROUNDS, cv2.GC_INIT_WITH_MASK)
    cut = np.asarray(found)
    return np.asarray((cut == cv2.GC_FGD) | (cut == cv2.GC_PR_FGD))
