"""Labels as LabelDiffusion makes them, for comparison: written from its description, none of its code.

The DAAM heat map of one word (all steps, layers and heads), enlarged to the image and stretched to 0..255; Otsu's
threshold; ten erosions and seven dilations of 3 x 3; what lies inside the external contours. The erosions are meant for
images of 512 pixels, so the map is enlarged to 512 and the mask made small again. LabelDiffusion labels one word of a
prompt; here every object's word has its turn, which is kinder to it.
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
