"""Measures labels: intersection over union with the oracle's masks; a missing label counts as 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from benchmarks.labels.drawing import Drawn, Mask
from numpy.typing import NDArray

from diffugen_generator.samples.labels import Instance

Labeled = Callable[[Drawn], Mapping[str, Mask]]
"""A labeler as a function: it returns a mask [64, 64] for each class that it finds in an image."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Mean intersection over union over objects."""

    one: float
    """In images with one object."""
    two: float
    """In images with two objects."""
    all: float
    absent: int
    """Labels of classes that the prompt does not name."""
    asked: int
    """Classes, over all images, that the prompts do not name."""


def quality_of(drawn: Iterable[Drawn], labelled: Labeled, classes: Sequence[str]) -> Quality:
    """Judge a labeler on images."""
    values: dict[int, list[float]] = {1: [], 2: []}
    absent = asked = 0
    for each in drawn:
        masks = labelled(each)
        for kind, truth in each.truth.items():
            values[len(each.truth)].append(overlap(masks.get(kind, np.zeros_like(truth)), truth))
        others = [kind for kind in classes if kind not in each.truth]
        absent += sum(bool(masks[kind].any()) for kind in others if kind in masks)
        asked += len(others)
    one, two, both = (float(np.mean(some)) for some in (values[1], values[2], values[1] + values[2]))
    return Quality(one, two, both, absent, asked)


def masks_of(instances: Iterable[Instance]) -> dict[str, Mask]:
    """Return the union of each class's instances."""
    masks: dict[str, Mask] = {}
    for each in instances:
        mask = each.segmentation.mask()
        masks[each.class_name] = masks.get(each.class_name, np.zeros_like(mask)) | mask
    return masks


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((one & other).sum() / max(1, (one | other).sum()))
