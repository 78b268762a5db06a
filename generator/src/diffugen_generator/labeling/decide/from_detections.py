"""From detections to instances: thresholds, duplicates, and classes. Pure, on a CPU, without torch.

A detector's classes are matched by name. If several classes of the dataset have one name in the detector (sedan and
suv are both its car), the prompt decides which class is meant; words of replaced objects count as well. If the prompt
names none or several of them, the object gets no label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from diffugen_api.recipes import classes_by_native
from diffugen_api.v1alpha1 import DetectorLabeling, ObjectClass
from diffugen_api.words import Vocabulary, mentions
from diffugen_generator.labeling.evidence.detections import Detection, Detections
from diffugen_generator.samples.labels import Instance, Rle


def choose(
    detections: Detections,
    settings: DetectorLabeling,
    classes: Sequence[ObjectClass],
    prompt: str,
    words: Mapping[str, Sequence[str]] | None = None,
    *,
    tokens: Sequence[str] = (),
) -> list[Instance]:
    """Return the objects of an image, class by class in the order of `classes`, the best first.

    Args:
        detections: all detections of the detector.
        settings: `confidence` and `iou` are read here; the other settings are part of the evidence.
        classes: the dataset's.
        prompt: the image's, as plain text.
        words: other names of the objects of a class in the prompt, besides the class's own words.
        tokens: the tokens of textual inversion, each of which is one word.
    """

    def named() -> set[str]:
        vocabulary = Vocabulary({each.name: each.words for each in classes}, tokens=tokens).called(words or {})
        return {mention.name for mention in mentions(prompt, vocabulary)}

    names = _names(settings, classes, named)
    found: dict[str, list[Detection]] = {each.name: [] for each in classes}
    for detection in detections.found:
        name = names.get(detection.native.casefold())
        if name is not None and detection.score >= settings.confidence:
            found[name].append(detection)
    return [
        instance_of(name, each.score, each.mask) for name, some in found.items() for each in _apart(some, settings.iou)
    ]


def instance_of(name: str, score: float, mask: Rle) -> Instance:
    """Return an object with this mask; its box encloses the mask's pixels."""
    x, y, width, height = (float(side) for side in coco_mask.toBbox(mask.encoded()))
    return Instance(name, score, (x, y, width, height), int(coco_mask.area(mask.encoded())), mask)


def overlaps(ones: Sequence[Rle], others: Sequence[Rle]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the intersection over union of each mask of `ones` with each of `others`: [ones, others]."""
    if not ones or not others:
        return np.zeros((len(ones), len(others)))
    crowds = [0] * len(others)
    return np.asarray(coco_mask.iou([m.encoded() for m in ones], [m.encoded() for m in others], crowds))


def _names(settings: DetectorLabeling, classes: Sequence[ObjectClass], named: Callable[[], set[str]]) -> dict[str, str]:
    """Return the dataset's class for each class of the detector, in lower case; ambiguous ones are left out.

    `named` returns the classes that the prompt names; it is called only if classes share a class of the detector.
    """
    natives = classes_by_native(settings, classes)
    shared = named() if any(len(some) > 1 for some in natives.values()) else set()
    meant = {
        native: some if len(some) == 1 else [each for each in some if each.name in shared]
        for native, some in natives.items()
    }
    return {native: some[0].name for native, some in meant.items() if len(some) == 1}


def _apart(detections: Sequence[Detection], most: float) -> list[Detection]:
    """Drop detections that overlap a better one by more than `most`; `detections` has the best first."""
    overlap = overlaps([each.mask for each in detections], [each.mask for each in detections])
    kept: list[int] = []
    for number in range(len(detections)):
        if all(overlap[number, other] <= most for other in kept):
            kept.append(number)
    return [detections[number] for number in kept]
