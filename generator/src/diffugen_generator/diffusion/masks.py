"""What of a picture is drawn anew: a cover made of labels, and how the result is put back. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """A picture that another one is drawn from."""

    picture: NDArray[np.uint8]
    """[height, width, 3] sRGB."""
    cover: NDArray[np.float32] | None = None
    """[height, width] in 0..1: how much of each pixel is drawn anew; all of the picture where absent."""

    def put_back(self, drawn: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the picture with what was drawn in it [height, width, 3]; where nothing is covered it is the same."""
        if self.cover is None:
            return drawn
        cover = self.cover[:, :, None]
        mixed = np.rint(cover * drawn + (1 - cover) * self.picture).astype(np.uint8)
        return np.where(cover > 0, mixed, self.picture)


def cover_of(masks: Sequence[NDArray[np.bool_]], dilation: float) -> NDArray[np.float32]:
    """Return the cover [height, width] of objects, given as masks [height, width] (one or more).

    All of each object is drawn anew. Around it lies a ring, `dilation` of the picture's shorter side wide, that fades
    from the new to the old, so that no seam is seen; beyond it nothing is covered.
    """
    mask: NDArray[np.bool_] = np.logical_or.reduce(list(masks))
    reach = round(dilation * min(mask.shape))
    if not reach:
        return np.asarray(mask, np.float32)
    # distances are between pixels' centres: the first pixel beyond the mask is at 1
    beyond = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(np.clip(1 - beyond / (reach + 1), 0, 1), np.float32)
