"""Settling uncertain pixels by the image's colors.

Attention is coarse: a cell of 16 x 16 stands for 4 pixels of 64 or 32 of 512. Around each object lies a band
of which the maps cannot tell; there the image can. A graph cut (GrabCut, Rother et al. 2004) learns the
colors of the certain inside and of the certain outside and draws the border where it costs least, along
edges.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

LONGEST: Final = 256
"""Pixels of the longer side at which cuts are made: 0.07 s each on one core; a cut of 512 x 512 takes 0.4 s.
"""

ROUNDS: Final = 2
"""Times that colors are learnt and the border drawn; more change nothing."""

_COMPONENTS: Final = 65
"""Values of a GrabCut color model: five Gaussians of 13 each."""


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
        inside: [height, width]; certainly the object's.
        outside: [height, width]; certainly not the object's.
        likely: [height, width]; where neither is certain, the guess to begin with. It is also the answer
            where
            there is no certain pixel on one of the sides, and so nothing to learn colors from.
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
    cv2.setRNGSeed(0)  # GrabCut begins with a k-means of random centres; the generator is the thread's own
    behind, front = np.zeros((1, _COMPONENTS)), np.zeros((1, _COMPONENTS))
    # The rectangle is not read with GC_INIT_WITH_MASK; `marks` is written to.
    found, *_ = cv2.grabCut(image, marks.copy(), (0, 0, 1, 1), behind, front, ROUNDS, cv2.GC_INIT_WITH_MASK)
    cut = np.asarray(found)
    return np.asarray((cut == cv2.GC_FGD) | (cut == cv2.GC_PR_FGD))
