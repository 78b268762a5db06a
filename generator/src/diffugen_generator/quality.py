"""Which objects and which pictures are good enough: `spec.quality`, applied to one picture's labels.

Pure: the same labels and settings give the same verdict, so a stricter setting costs a publish and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from diffugen_api.v1alpha1 import Quality
from diffugen_generator.records import Instance

TOO_FEW = "TooFewInstances"
"""A picture's reason: fewer objects than `minInstances` are left."""
TOO_SMALL = "BelowMinAreaFraction"
TOO_LARGE = "AboveMaxAreaFraction"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What quality says of one picture."""

    instances: tuple[Instance, ...]
    """The objects that stand."""
    reason: str = ""
    """Why the picture is rejected, in CamelCase; empty where it is accepted."""
    dropped: dict[str, int] = field(default_factory=dict)
    """How many objects do not stand, by reason."""

    @property
    def accepted(self) -> bool:
        """Whether the picture is in the dataset."""
        return not self.reason


def judge(instances: Sequence[Instance], pixels: int, quality: Quality) -> Verdict:
    """Judge a picture of `pixels` pixels by what is labelled in it."""
    standing: list[Instance] = []
    dropped: dict[str, int] = {}
    for instance in instances:
        fault = _fault(instance.area / pixels, quality)
        if fault:
            dropped[fault] = dropped.get(fault, 0) + 1
        else:
            standing.append(instance)
    reason = TOO_FEW if len(standing) < quality.min_instances else ""
    return Verdict(tuple(standing), reason, dropped)


def _fault(fraction: float, quality: Quality) -> str:
    if fraction < quality.min_area_fraction:
        return TOO_SMALL
    return TOO_LARGE if fraction > quality.max_area_fraction else ""
