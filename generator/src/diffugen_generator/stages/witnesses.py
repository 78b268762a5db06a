"""The labellers beside the model that draws, for the samples of one shard: opened when first asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import torch

from diffugen_api.plan import SpecError
from diffugen_api.recipes import CLIP, DETECTOR
from diffugen_api.v1alpha1 import S3
from diffugen_generator.judges import Judge, clip_of, detectors_of
from diffugen_generator.labeling.clip_score import Score
from diffugen_generator.labeling.detections import Detections
from diffugen_generator.labeling.detectors.opening import open_clip, open_detector
from diffugen_generator.labeling.findings import Findings
from diffugen_generator.labeling.labeler import Labeler, Seen, W_co
from diffugen_generator.shards import ShardHeader


class Witnesses:
    """A detector and a CLIP model, as far as a shard asks for them."""

    def __init__(self, header: ShardHeader, device: torch.device, s3: S3 | None = None) -> None:
        """Open nothing yet; later, on `device`. `s3` is the store that `s3://` means."""
        self._s3 = s3
        self._header = header
        self._device = device

    def complete(self, seen: Sequence[Seen], found: Sequence[Findings]) -> list[Findings]:
        """Return `found` with what it lacks of the pictures `seen`."""
        whole = list(found)
        if DETECTOR in self._header.witnesses:
            lacking = [place for place, each in enumerate(whole) if each.detections is None]
            for place, detections in _looked(lambda: self._detector, seen, lacking):
                whole[place] = replace(whole[place], detections=detections)
        if CLIP in self._header.witnesses:
            lacking = [place for place, each in enumerate(whole) if each.clip is None]
            for place, score in _looked(lambda: self._clip, seen, lacking):
                whole[place] = replace(whole[place], clip=score)
        return whole

    @cached_property
    def _detector(self) -> Labeler[Detections]:
        header = self._header
        if header.detector is None:
            raise AssertionError("a shard with detections to make names a detector")
        return open_detector(
            header.detector, self._checked(detectors_of(header.detector, self._s3)), header.classes, self._device
        )

    @cached_property
    def _clip(self) -> Labeler[Score]:
        if self._header.clip is None:
            raise AssertionError("a shard with CLIP scores to make names a CLIP model")
        return open_clip(self._checked({CLIP: clip_of(self._header.clip, self._s3)})[CLIP], self._device)

    def _checked(self, judges: dict[str, Judge]) -> dict[str, Judge]:
        for kind, judge in judges.items():
            planned = self._header.judges[kind]
            if judge.digest != planned:
                raise SpecError(
                    "ModelChanged",
                    f"the model {judge.uri} has the digest {judge.digest[:12]} here, and had {planned[:12]} in the "
                    "plan; give plan and stages the same model, or plan again.",
                )
        return judges


def _looked(
    labeler: Callable[[], Labeler[W_co]], seen: Sequence[Seen], places: Sequence[int]
) -> list[tuple[int, W_co]]:
    if not places:
        return []
    return list(zip(places, labeler().look([seen[place] for place in places]), strict=True))
