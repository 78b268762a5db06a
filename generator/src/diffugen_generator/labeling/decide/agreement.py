"""Agreement of attention and detector: an object is kept if both find it. Pure, without torch.

They fail in different ways. Attention knows the prompt, but not the exact border. A detector knows borders, but not
the prompt. An object that both find is more reliable. It gets the detector's mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from diffugen_generator.labeling.decide.from_detections import overlaps
from diffugen_generator.samples.labels import Instance, MarkedInstance

ATTENTION, DETECTOR = "attention", "detector"

UNSEEN = "NotSeenByOther"
"""The other labeler has no object of any class there."""
POOR_OVERLAP = "OverlapTooSmall"
"""The other labeler has an object of the class there, but it overlaps by less than `agreement` or fits another
object better."""
OTHER_CLASS = "ClassDiffers"
"""The other labeler has an object of another class there, which overlaps by at least `agreement`."""


def agree(
    attention: Sequence[Instance], detector: Sequence[Instance], least: float
) -> tuple[list[Instance], list[MarkedInstance]]:
    """Return the kept objects, with the detector's masks, and the marked ones, which are not published.

    Objects of one class are matched one to one, the best overlap first. A match needs an intersection over union of at
    least `least`. A kept object has both labelers' scores and the overlap in `scores`.
    """
    overlap = overlaps([each.segmentation for each in detector], [each.segmentation for each in attention])
    same = np.array([[one.class_name == other.class_name for other in attention] for one in detector])
    same = same.reshape(overlap.shape).astype(bool)
    pairs = _pairs(np.where(same, overlap, -1.0), least)
    kept = [
        replace(
            each,
            scores={
                DETECTOR: each.score,
                ATTENTION: attention[pairs[number]].score,
                "iou": float(overlap[number, pairs[number]]),
            },
        )
        for number, each in enumerate(detector)
        if number in pairs
    ]
    matched = set(pairs.values())
    marked = [
        _marked(DETECTOR, each, overlap[number], same[number], least)
        for number, each in enumerate(detector)
        if number not in pairs
    ]
    marked += [
        _marked(ATTENTION, each, overlap[:, number], same[:, number], least)
        for number, each in enumerate(attention)
        if number not in matched
    ]
    return kept, marked


def _pairs(overlap: np.ndarray[tuple[int, int], np.dtype[np.float64]], least: float) -> dict[int, int]:
    """Match rows to columns one to one, the best first; equal pairs in their order."""
    pairs: dict[int, int] = {}
    order = np.argsort(-overlap, axis=None, kind="stable")
    for row, column in (divmod(int(flat), overlap.shape[1]) for flat in order):
        if overlap[row, column] < max(least, 1e-9):
            break
        if row not in pairs and column not in pairs.values():
            pairs[row] = column
    return pairs


def _marked(
    by: str,
    instance: Instance,
    overlap: np.ndarray[tuple[int], np.dtype[np.float64]],
    same: np.ndarray[tuple[int], np.dtype[np.bool_]],
    least: float,
) -> MarkedInstance:
    alike = float(overlap[same].max(initial=0.0))
    unlike = float(overlap[~same].max(initial=0.0))
    if unlike > alike and unlike >= max(least, 1e-9):
        return MarkedInstance(instance, by, OTHER_CLASS, unlike)
    return MarkedInstance(instance, by, POOR_OVERLAP if alike > 0 else UNSEEN, alike)
