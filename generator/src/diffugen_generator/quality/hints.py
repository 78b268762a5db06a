"""What to change where every image is rejected: a fix for each reason, that of the most frequent one first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from diffugen_api.recipes import CLIP, SAFETY
from diffugen_generator.labeling.side_model_registry import SIDE_MODELS
from diffugen_generator.quality.sources import REJECTED, UNLABELED
from diffugen_generator.quality.verdicts import AT_BORDER, BLANK_IMAGE, DUPLICATE, TOO_FEW, TOO_LARGE, TOO_SMALL

_OF_IMAGES: Final[Mapping[str, str]] = {
    BLANK_IMAGE: "the images have one color only, so look at some, and check the model, run.dtype and the prompts",
    DUPLICATE: "raise samplesPerPrompt, or lower quality.duplicates.maxDistance",
    REJECTED: "see why the source's images are rejected",
    UNLABELED: "name the class that is replaced in the source's prompts, or lower the thresholds in spec.labeling",
    SIDE_MODELS[CLIP].reason: "lower quality.clipScore.min",
    SIDE_MODELS[SAFETY].reason: "change the prompts, or raise quality.safety.max",
}
_OF_OBJECTS: Final[Mapping[str, str]] = {
    TOO_SMALL: "lower quality.minAreaFraction",
    TOO_LARGE: "raise quality.maxAreaFraction",
    AT_BORDER: "lower quality.minBorderDistance",
}
_NO_OBJECTS: Final = (
    "no object was found, so name the classes in the prompts, lower the thresholds in spec.labeling, or set "
    "quality.minInstances to 0"
)
_TOO_FEW: Final = "lower quality.minInstances"


def hints(reasons: Mapping[str, int], dropped: Mapping[str, int], objects: int) -> str:
    """Return what to change, joined by semicolons.

    Args:
        reasons: the number of rejected images by reason.
        dropped: the number of rejected objects by reason.
        objects: how many objects the rejected images have that are not rejected themselves.
    """
    found: dict[str, None] = {}
    for reason in sorted(reasons, key=lambda each: (-reasons[each], each)):
        if reason == TOO_FEW:
            found |= dict.fromkeys(_for_objects(dropped, objects))
        elif reason in _OF_IMAGES:
            found[_OF_IMAGES[reason]] = None
    return "; ".join(found)


def _for_objects(dropped: Mapping[str, int], objects: int) -> list[str]:
    if not dropped and not objects:
        return [_NO_OBJECTS]
    by_count = sorted(dropped, key=lambda each: (-dropped[each], each))
    return [_OF_OBJECTS[each] for each in by_count] + [_TOO_FEW]
