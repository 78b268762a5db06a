"""The detections of one image, in the form that the store keeps: the best ones down to `LEAST_CONFIDENCE`.

`decide.from_detections` applies thresholds, so a changed threshold does not run the detector again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffugen_api.v1alpha1 import LEAST_CONFIDENCE
from diffugen_generator.labeling.evidence.npz import arrays_in, npz_of
from diffugen_generator.samples.labels import Rle

MOST = 100
"""The most detections kept of one image; the best are kept."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One answer of a detector."""

    native: str
    """The detector's name of the class."""
    score: float
    """The detector's score, in 0..1."""
    mask: Rle


@dataclass(frozen=True, slots=True)
class Detections:
    """A detector's answers for one image, the best first."""

    size: tuple[int, int]
    """The image's height and width in pixels."""
    found: tuple[Detection, ...]

    @classmethod
    def of(cls, masks: NDArray[np.bool_], natives: Sequence[str], scores: Sequence[float]) -> Detections:
        """Keep the best of the answers: `masks` [n, height, width], and a class and a score for each."""
        scores = [round(min(1.0, max(0.0, float(score))), 4) for score in scores]  # equal answers give equal bytes
        order = [i for i in np.argsort([-score for score in scores], kind="stable") if masks[i].any()]
        best = [i for i in order if scores[i] >= LEAST_CONFIDENCE][:MOST]
        found = tuple(Detection(natives[i], scores[i], Rle.of(masks[i])) for i in best)
        return cls((int(masks.shape[1]), int(masks.shape[2])), found)

    def dumps(self, sample_id: str = "") -> bytes:
        """Return an npz file: the same bytes for the same detections of the same sample."""
        arrays = {
            "size": np.array(self.size, np.int32),
            "natives": np.array([each.native for each in self.found], np.str_),
            "scores": np.array([each.score for each in self.found], np.float64),
            "masks": np.array([each.mask.counts for each in self.found], np.str_),
        }
        return npz_of(arrays, sample_id, compressed=True)

    @classmethod
    def loads(cls, data: bytes, sample_id: str = "") -> Detections:
        """Read the npz file of a sample; raise `ValueError` if it is damaged or another sample's."""
        with arrays_in(data, "a file of detections", sample_id) as arrays:
            height, width = (int(side) for side in arrays["size"])
            rows = list(zip(arrays["natives"], arrays["scores"], arrays["masks"], strict=True))
            found = [_detection(str(name), float(score), (height, width), str(mask)) for name, score, mask in rows]
        return cls((height, width), tuple(found))


def _detection(native: str, score: float, size: tuple[int, int], counts: str) -> Detection:
    if not math.isfinite(score):
        raise ValueError(f"the score of a {native[:40]!r} is not finite")
    return Detection(native, score, Rle.from_row({"size": size, "counts": counts}))
