"""From evidence to instances: which pixels belong to which class. Pure, on a CPU, without torch.

Every map is enlarged to the image. At each pixel the greatest value of all classes wins. Map values are fractions of
the map's own range, because words get different amounts of attention. A winner above the threshold owns the pixel,
unless a background word has a higher value there. Attention to background words is imprecise, so they do not win over
certain pixels. Pixels near the threshold are uncertain; with `snap`, the image's colors decide them.
A class that the prompt does not name has no map, and so no label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from diffugen_api.v1alpha1 import AttentionLabeling
from diffugen_generator.labeling.decide.instances import NOTHING, instances_of, without_fragments
from diffugen_generator.labeling.decide.snapping import snapped
from diffugen_generator.labeling.decide.thresholds import thresholds_of
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.samples.labels import Instance, Region, Rle

BELOW, ABOVE = 0.25, 0.3
"""A pixel up to this far below or above the threshold is uncertain, as a fraction of a map's range. Maps decrease
slowly, and also inside objects, so the image's colors decide far above the threshold, too."""

LEAST, MOST = 0.05, 0.95
"""Ends of the uncertain band: a pixel below or above these fractions of its map's range is never uncertain."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The label that attention gives an image."""

    instances: list[Instance]
    """Class by class, the largest first."""
    ignored: list[Region]
    """For each class, the pixels that are neither its objects nor background, if `ignoreBand` is set."""


def decision_of(evidence: AttentionMaps, image: NDArray[np.uint8], settings: AttentionLabeling) -> Decision:
    """Return the objects of an image, and the regions to ignore in it.

    Args:
        evidence: the maps of the words that the image's prompt names.
        image: the image, [height, width, 3] sRGB.
        settings: `threshold`, `snap`, `fragmentFraction`, `ignoreBand` and `minPresence` are read here; the other
            settings are part of the evidence.
    """
    evidence = present(evidence, settings)
    if not evidence.classes:
        return Decision([], [])
    maps = enlarged(evidence.maps, image.shape[0], image.shape[1])  # [words, height, width] in 0..1
    found = thresholds(maps, len(evidence.classes), image, settings)  # [classes]
    owners = owners_of(maps, found, image, snap=settings.snap)
    if settings.fragment_fraction:
        owners = without_fragments(owners, settings.fragment_fraction)
    instances = instances_of(owners, maps, evidence.classes)
    return Decision(instances, ignored_of(owners, maps, evidence.classes, found, settings.ignore_band))


def present(evidence: AttentionMaps, settings: AttentionLabeling) -> AttentionMaps:
    """Return the evidence without the classes whose presence is too low; their words do not compete for pixels."""
    if settings.min_presence is None or not evidence.presence:
        return evidence
    kept = [index for index, share in enumerate(evidence.presence) if share >= settings.min_presence]
    rows = [*kept, *range(len(evidence.classes), len(evidence.maps))]
    return AttentionMaps(
        tuple(evidence.classes[index] for index in kept),
        evidence.background,
        evidence.maps[rows],
        tuple(evidence.presence[index] for index in kept),
    )


def owners_of(
    maps: NDArray[np.float32], threshold: NDArray[np.float64], image: NDArray[np.uint8], *, snap: bool
) -> NDArray[np.int32]:
    """Return the index of the class that owns each pixel, or `NOTHING`: [height, width].

    Args:
        maps: [words, height, width] in 0..1, the classes' maps first, then those of background words.
        threshold: [classes], in 0..1.
        image: [height, width, 3] sRGB.
        snap: whether the image's colors decide uncertain pixels.
    """
    classes = len(threshold)
    winner = maps[:classes].argmax(axis=0)
    value = maps[:classes].max(axis=0)
    behind = maps[classes:].max(axis=0, initial=0.0)
    certain = value >= np.minimum(MOST, threshold + ABOVE).astype(np.float32)[winner]
    likely = (value >= threshold.astype(np.float32)[winner]) & (certain | (value >= behind))
    if not snap:
        return np.where(likely, winner, NOTHING).astype(np.int32)
    uncertain = (value >= np.maximum(LEAST, threshold - BELOW).astype(np.float32)[winner]) & ~certain
    owners = np.full(value.shape, NOTHING, np.int32)
    strongest = np.zeros(value.shape, np.float32)
    for index in range(classes):
        wins = winner == index
        inside = wins & certain
        found = snapped(image, inside=inside, outside=~(inside | uncertain), likely=wins & likely)
        takes = found & (maps[index] > strongest)  # a pixel in two classes' cuts gets the one with the greater map
        owners[takes] = index
        strongest[takes] = maps[index][takes]
    return owners


def thresholds(
    maps: NDArray[np.float32], classes: int, image: NDArray[np.uint8], settings: AttentionLabeling
) -> NDArray[np.float64]:
    """Return the threshold of each class: [classes]. The first `classes` of `maps` are those of classes."""
    if settings.threshold == "auto":
        return thresholds_of(maps[:classes], maps[:classes].argmax(axis=0), image).astype(np.float64)
    return np.full(classes, settings.threshold)


def ignored_of(
    owners: NDArray[np.int32],
    maps: NDArray[np.float32],
    classes: Sequence[str],
    threshold: NDArray[np.float64],
    band: float,
) -> list[Region]:
    """Return, class by class, pixels without object at most `band` below the threshold (Dataset Diffusion's 255)."""
    if not band:
        return []
    count = len(classes)
    winner, value = maps[:count].argmax(axis=0), maps[:count].max(axis=0)
    bottom = threshold[winner] - band
    uncertain = (owners == NOTHING) & (value >= bottom) & (value >= maps[count:].max(axis=0, initial=0.0))
    regions = [(name, uncertain & (winner == index)) for index, name in enumerate(classes)]
    return [Region(name, Rle.of(mask)) for name, mask in regions if mask.any()]


def enlarged(maps: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """Return `maps` [words, h, w] at the image's size, each stretched to 0..1: [words, height, width]."""
    large = np.stack([cv2.resize(m.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) for m in maps])
    least, greatest = large.min(axis=(1, 2), keepdims=True), large.max(axis=(1, 2), keepdims=True)
    return np.asarray((large - least) / np.maximum(greatest - least, 1.0), np.float32)
