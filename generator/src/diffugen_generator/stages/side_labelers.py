"""The labellers beside the model that draws, for the samples of one shard: opened when first asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from diffugen_api.plan import SpecError
from diffugen_api.recipes import CLIP, DETECTOR, SAFETY
from diffugen_api.v1alpha1 import S3
from diffugen_generator.labeling.decide.findings import Findings
from diffugen_generator.labeling.detectors.opening import open_clip, open_detector, open_safety_checker
from diffugen_generator.labeling.labeler import Labeler, LabelInput, Witness
from diffugen_generator.models.side_models import Judge, clip_of, detectors_of, safety_of
from diffugen_generator.samples.shards import ShardHeader

_FIELDS: Mapping[str, str] = {DETECTOR: "detections", CLIP: "clip", SAFETY: "safety"}
"""Where findings keep what each kind saw."""


class Witnesses:
    """A detector, a CLIP model and a safety checker, as far as a shard asks for them."""

    def __init__(self, header: ShardHeader, device: torch.device, s3: S3 | None = None) -> None:
        """Open nothing yet; later, on `device`. `s3` is the store that `s3://` means."""
        self._s3 = s3
        self._header = header
        self._device = device
        self._open: dict[str, Labeler[Witness]] = {}

    def open(self) -> None:
        """Load all that the shard asks for; raise `SpecError` where one cannot be."""
        for kind in self._header.witnesses:
            self._labeler(kind)

    def complete(self, seen: Sequence[LabelInput], found: Sequence[Findings]) -> list[Findings]:
        """Return `found` with what it lacks of the pictures `seen`."""
        whole = list(found)
        for kind in self._header.witnesses:
            field = _FIELDS[kind]
            if lacking := [place for place, each in enumerate(whole) if getattr(each, field) is None]:
                told = self._labeler(kind).look([seen[place] for place in lacking])
                for place, witness in zip(lacking, told, strict=True):
                    more: dict[str, Any] = {field: witness}
                    whole[place] = replace(whole[place], **more)
        return whole

    def _labeler(self, kind: str) -> Labeler[Witness]:
        if kind not in self._open:
            openers: dict[str, Callable[[], Labeler[Witness]]] = {
                DETECTOR: self._detector,
                CLIP: self._clip,
                SAFETY: self._safety,
            }
            self._open[kind] = openers[kind]()
        return self._open[kind]

    def _detector(self) -> Labeler[Witness]:
        header = self._header
        if header.detector is None:
            raise AssertionError("a shard with detections to make names a detector")
        return open_detector(
            header.detector, self._checked(detectors_of(header.detector, self._s3)), header.classes, self._device
        )

    def _clip(self) -> Labeler[Witness]:
        if self._header.clip is None:
            raise AssertionError("a shard with CLIP scores to make names a CLIP model")
        return open_clip(self._checked({CLIP: clip_of(self._header.clip, self._s3)})[CLIP], self._device)

    def _safety(self) -> Labeler[Witness]:
        if self._header.safety is None:
            raise AssertionError("a shard with pictures to check names a safety checker")
        judges = self._checked({SAFETY: safety_of(self._header.safety, self._s3)})
        return open_safety_checker(judges[SAFETY], self._device)

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
