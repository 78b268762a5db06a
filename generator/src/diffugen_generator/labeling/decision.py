"""From evidence to instances: which pixels belong to which class. Pure, on a CPU, without torch.

Every map is enlarged to the picture; at each pixel the words compete and the greatest value wins (each map
counts in parts of its own range, since words differ in how much attention they draw at all). Where the winner
is a class and stands above the threshold, the pixel is an object's; pixels near the threshold are uncertain
and, if asked for, go where the picture's colours say. A class that the prompt does not name has no map, and
so never a label.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from diffugen_api.v1alpha1 import AttentionLabeling
from diffugen_generator.labeling.evidence import Evidence
from diffugen_generator.labeling.instances import instances_of
from diffugen_generator.labeling.snapping import UNCERTAIN, snapped
from diffugen_generator.records import Instance

BAND = 0.15
"""Half width of the uncertain band around the threshold, in parts of a map's range."""

NOTHING = -1
"""The owner of a pixel that is in no object."""


def decide(evidence: Evidence, image: NDArray[np.uint8], settings: AttentionLabeling) -> list[Instance]:
    """Return the objects of a picture, class by class, the largest first.

    Args:
        evidence: the maps of the words that the picture's prompt names.
        image: the picture, [height, width, 3] sRGB.
        settings: `threshold` and `snap` are read here; all else went into the evidence.
    """
    if not evidence.classes:
        return []
    maps = enlarged(evidence.maps, image.shape[0], image.shape[1])  # [words, height, width] in 0..1
    owners = owners_of(maps, len(evidence.classes), image, settings)
    return instances_of(owners, maps, evidence.classes)


def owners_of(
    maps: NDArray[np.float32], classes: int, image: NDArray[np.uint8], settings: AttentionLabeling
) -> NDArray[np.int32]:
    """Return the index of the class that owns each pixel, or `NOTHING`: [height, width].

    `maps` [words, height, width] are in 0..1, the first `classes` of them those of classes, the others
    background.
    """
    winner = maps.argmax(axis=0).astype(np.int32)
    value = maps.max(axis=0)
    candidate = winner < classes
    if not settings.snap:
        return np.where(candidate & (value >= settings.threshold), winner, NOTHING).astype(np.int32)
    inside, outside = settings.threshold + BAND, settings.threshold - BAND
    owners = np.where(candidate & (value >= inside), winner, NOTHING).astype(np.int32)
    owners[candidate & (value >= outside) & (value < inside)] = UNCERTAIN
    return snapped(owners, image, fallback=np.where(candidate & (value >= settings.threshold), winner, NOTHING))


def enlarged(maps: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """Return `maps` [words, h, w] at the picture's size, each stretched to 0..1: [words, height, width]."""
    large = np.stack([cv2.resize(m.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) for m in maps])
    least, greatest = large.min(axis=(1, 2), keepdims=True), large.max(axis=(1, 2), keepdims=True)
    return np.asarray((large - least) / np.maximum(greatest - least, 1.0), np.float32)
