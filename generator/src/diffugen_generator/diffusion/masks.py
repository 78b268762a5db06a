"""Masks for inpainting: makes a mask from labels, and puts the drawn part back into the image. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class SourceImage:
    """An image from which another one is drawn."""

    image: NDArray[np.uint8]
    """[height, width, 3] sRGB."""
    mask: NDArray[np.float32] | None = None
    """[height, width] in 0..1: how much of each pixel is redrawn. If absent, the whole image is redrawn."""

    def put_back(self, drawn: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image with the drawn part in it [height, width, 3]; pixels outside the mask do not change."""
        if self.mask is None:
            return drawn
        mask = self.mask[:, :, None]
        mixed = np.rint(mask * drawn + (1 - mask) * self.image).astype(np.uint8)
        return np.where(mask > 0, mixed, self.image)


def fading_mask(masks: Sequence[NDArray[np.bool_]], dilation: float) -> NDArray[np.float32]:
    """Return the mask [height, width] of objects, given as masks [height, width] (one or more).

    The whole object is redrawn. Around it, a ring fades from the new image to the old one, so that no border is
    visible. Its width is `dilation` times the image's shorter side. Outside the ring the mask is 0.
    """
    mask: NDArray[np.bool_] = np.logical_or.reduce(list(masks))
    reach = round(dilation * min(mask.shape))
    if not reach:
        return np.asarray(mask, np.float32)
    # Distances are between the centers of pixels: the first pixel outside the mask has distance 1.
    beyond = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(np.clip(1 - beyond / (reach + 1), 0, 1), np.float32)
