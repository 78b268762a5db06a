"""What of an image is drawn anew: a mask made of labels, and how the result is put back. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class SourceImage:
    """An image that another one is drawn from."""

    image: NDArray[np.uint8]
    """[height, width, 3] sRGB."""
    mask: NDArray[np.float32] | None = None
    """[height, width] in 0..1: how much of each pixel is drawn anew; all of the image where absent."""

    def put_back(self, drawn: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image with what was drawn in it [height, width, 3]; where nothing is covered it is the same."""
        if self.mask is None:
            return drawn
        mask = self.mask[:, :, None]
        mixed = np.rint(mask * drawn + (1 - mask) * self.image).astype(np.uint8)
        return np.where(mask > 0, mixed, self.image)


def fading_mask(masks: Sequence[NDArray[np.bool_]], dilation: float) -> NDArray[np.float32]:
    """Return the mask [height, width] of objects, given as masks [height, width] (one or more).

    All of each object is drawn anew. Around it lies a ring, `dilation` of the image's shorter side wide, that fades
    from the new to the old, so that no seam is seen; beyond it nothing is covered.
    """
    mask: NDArray[np.bool_] = np.logical_or.reduce(list(masks))
    reach = round(dilation * min(mask.shape))
    if not reach:
        return np.asarray(mask, np.float32)
    # distances are between pixels' centres: the first pixel beyond the mask is at 1
    beyond = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(np.clip(1 - beyond / (reach + 1), 0, 1), np.float32)
