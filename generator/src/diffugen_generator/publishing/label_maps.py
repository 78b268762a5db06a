"""Label maps: an image whose pixels are class ids or instance numbers.

A map can hold one object a pixel. Where objects overlap, the smaller one is on top, so that it is not hidden behind a
larger one. Regions to ignore (see `ignoreBand`) have the largest value, and only where there is no object: 255 in a map
of 8 bits, 65535 in a map of 16 bits, which the classes need if there are more than 254.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffugen_generator.publishing.labeled_samples import LabeledSample

IGNORE = 255
"""The value in maps of 8 bits that is to be ignored."""


def class_map(sample: LabeledSample, class_ids: Mapping[str, int]) -> NDArray[Any]:
    """Return the classes [h, w]: 0 is background, a class is its id plus one, `ignored_value` is to be ignored."""
    ignored = ignored_value(len(class_ids))
    numbers = [class_ids[each.class_name] + 1 for each in sample.verdict.instances]
    return _painted(sample, numbers, np.min_scalar_type(ignored), ignored)


def ignored_value(classes: int) -> int:
    """Return the value to be ignored in a map of as many classes: 255 with 8 bits, else 65535."""
    return IGNORE if classes < IGNORE else 0xFFFF


def instance_map(sample: LabeledSample, bits: type[np.uint8] | type[np.uint16]) -> NDArray[Any]:
    """Return the instances [h, w]: 0 is background, an instance is its number from 1 in the order of the manifest.

    With 8 bits, 255 is to be ignored, and so are instances after the 254th. With 16 bits nothing is: 255 is a number
    like any other.
    """
    count = len(sample.verdict.instances)
    if bits is np.uint8:
        return _painted(sample, [min(number, IGNORE) for number in range(1, count + 1)], np.dtype(bits))
    return _painted(sample, list(range(1, count + 1)), np.dtype(bits), ignored=0)


def _painted(sample: LabeledSample, numbers: list[int], kind: np.dtype[Any], ignored: int = IGNORE) -> NDArray[Any]:
    canvas = np.zeros((sample.height, sample.width), kind)
    for region in sample.label.ignored:
        canvas[region.segmentation.mask()] = ignored
    for number, instance in sorted(
        zip(numbers, sample.verdict.instances, strict=True), key=lambda each: each[1].area, reverse=True
    ):
        canvas[instance.segmentation.mask()] = number
    return canvas
