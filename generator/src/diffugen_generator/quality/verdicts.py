"""Decides which objects and which images are accepted: applies `spec.quality` to labels alone.

Pure: the same labels and settings give the same verdict. So after a change of the settings, only the publish step runs
again. Duplicates need all images together: see `duplicates`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from diffugen_api.v1alpha1 import Quality
from diffugen_generator.labeling.evidence.image_statistics import BLANK
from diffugen_generator.labeling.side_model_registry import rejecting_score
from diffugen_generator.samples.labels import Instance, Label

TOO_FEW = "TooFewInstances"
"""An image's reason: fewer objects than `minInstances` are left."""
BLANK_IMAGE = "BlankPicture"
"""An image's reason: it has one color, such as an image that a safety filter made black."""
DUPLICATE = "Duplicate"
"""An image's reason: it looks like an accepted image."""
TOO_SMALL = "BelowMinAreaFraction"
TOO_LARGE = "AboveMaxAreaFraction"
AT_BORDER = "WithinMinBorderDistance"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of `spec.quality` on one image."""

    instances: tuple[Instance, ...]
    """The accepted objects."""
    reason: str = ""
    """Why the image is rejected, in CamelCase; empty if it is accepted."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Number of rejected objects, by reason."""
    duplicate_of: str = ""
    """The sample that it is a duplicate of, if it is one."""

    @property
    def accepted(self) -> bool:
        """Whether the image is in the dataset."""
        return not self.reason

    def as_duplicate(self, of: str) -> Verdict:
        """Return the verdict on an image that is good enough but looks like that of the sample `of`."""
        return replace(self, reason=DUPLICATE, duplicate_of=of)


def verdict_on(label: Label, size: tuple[int, int], quality: Quality) -> Verdict:
    """Judge an image of `size` (height and width in pixels) by its label; duplicates are not considered here."""
    accepted: list[Instance] = []
    dropped: dict[str, int] = {}
    for instance in label.instances:
        fault = _fault(instance, size, quality)
        if fault:
            dropped[fault] = dropped.get(fault, 0) + 1
        else:
            accepted.append(instance)
    reason = _reason(label.statistics, label.scores, len(accepted), quality)
    return Verdict(tuple(accepted), reason, dropped)


def _reason(looks: Mapping[str, Any], scores: Mapping[str, float], accepted: int, quality: Quality) -> str:
    if looks and float(looks["deviation"]) < BLANK:
        return BLANK_IMAGE
    if rejected := rejecting_score(scores, quality):
        return rejected
    return TOO_FEW if accepted < quality.min_instances else ""


def _fault(instance: Instance, size: tuple[int, int], quality: Quality) -> str:
    height, width = size
    fraction = instance.area / (height * width)
    if fraction < quality.min_area_fraction:
        return TOO_SMALL
    if fraction > quality.max_area_fraction:
        return TOO_LARGE
    x, y, w, h = instance.bbox
    return AT_BORDER if min(x, y, width - x - w, height - y - h) < quality.min_border_distance else ""
