"""Labels in the way of LabelDiffusion, for comparison: written from its description, without its code.

The steps are: the DAAM heat map of one word (all steps, layers and heads), enlarged to the image and scaled to 0..255;
Otsu's threshold; ten erosions and seven dilations of 3 x 3; filling the external contours. The erosions are meant for
images of 512 pixels, so the map is enlarged to 512 and the mask is scaled back. LabelDiffusion labels one word of a
prompt. Here every object's word is labeled, which gives it a better result.
"""

from __future__ import annotations

import cv2
import numpy as np
from benchmarks.labels.drawing import Drawn, Mask

SIDE = 512
ERODE, DILATE = 10, 7


def labels_of(drawn: Drawn) -> dict[str, Mask]:
    """Return a mask for each class that the prompt names; the evidence is inline and unrefined."""
    assert drawn.evidence is not None
    height, width = drawn.image.shape[:2]
    found = {}
    for name, seen in zip(drawn.evidence.classes, drawn.evidence.maps, strict=False):
        large = cv2.resize(seen.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        levels = np.asarray(255 * (large - large.min()) / max(float(np.ptp(large)), 1e-8), np.uint8)
        _, mask = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        brush = np.ones((3, 3), np.uint8)
        mask = cv2.dilate(cv2.erode(mask, brush, iterations=ERODE), brush, iterations=DILATE)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        filled = cv2.drawContours(np.zeros_like(mask), contours, -1, 255, cv2.FILLED)
        found[name] = np.asarray(cv2.resize(filled, (width, height), interpolation=cv2.INTER_AREA)) >= 128
    return found
