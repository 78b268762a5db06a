"""The labelers beside the diffusion model, for the samples of one shard. Each is loaded when it is first needed."""

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
from diffugen_generator.labeling.labeler import Evidence, Labeler, LabelInput
from diffugen_generator.models.side_models import SideModel, clip_of, detectors_of, safety_of
from diffugen_generator.samples.shards import ShardHeader
from diffugen_generator.stages.batch_sizes import AdaptiveBatch

_FIELDS: Mapping[str, str] = {DETECTOR: "detections", CLIP: "clip", SAFETY: "safety"}
"""The field of `Findings` for the evidence of each kind."""


class SideLabelers:
    """The detector, the CLIP model and the safety checker that a shard asks for, with as many images at once as fit."""

    def __init__(self, header: ShardHeader, device: torch.device, s3: S3 | None = None) -> None:
        """Open nothing yet; later, on `device`. `s3` is the store that `s3://` means."""
        self._s3 = s3
        self._header = header
        self._device = device
        self._open: dict[str, Labeler[Evidence]] = {}
        self._adaptive = AdaptiveBatch("show the other models")

    def open(self) -> None:
        """Load all that the shard asks for; raise `SpecError` where one cannot be."""
        for kind in self._header.side_evidence_ids:
            self._labeler(kind)

    def complete(self, seen: Sequence[LabelInput], found: Sequence[Findings]) -> list[Findings]:
        """Return `found`, each completed with the evidence that it lacks of its image in `seen`."""
        return self._adaptive.each(self._complete, list(zip(seen, found, strict=True)))

    def _complete(self, pairs: Sequence[tuple[LabelInput, Findings]]) -> list[Findings]:
        seen, found = zip(*pairs, strict=True)
        whole = list(found)
        for kind in self._header.side_evidence_ids:
            field = _FIELDS[kind]
            if lacking := [place for place, each in enumerate(whole) if getattr(each, field) is None]:
                new = self._labeler(kind).look([seen[place] for place in lacking])
                for place, evidence in zip(lacking, new, strict=True):
                    more: dict[str, Any] = {field: evidence}
                    whole[place] = replace(whole[place], **more)
        return whole

    def _labeler(self, kind: str) -> Labeler[Evidence]:
        if kind not in self._open:
            openers: dict[str, Callable[[], Labeler[Evidence]]] = {
                DETECTOR: self._detector,
                CLIP: self._clip,
                SAFETY: self._safety,
            }
            self._open[kind] = openers[kind]()
        return self._open[kind]

    def _detector(self) -> Labeler[Evidence]:
        header = self._header
        if header.detector is None:
            raise AssertionError("a shard with detections to make names a detector")
        return open_detector(
            header.detector, self._checked(detectors_of(header.detector, self._s3)), header.classes, self._device
        )

    def _clip(self) -> Labeler[Evidence]:
        if self._header.clip is None:
            raise AssertionError("a shard with CLIP scores to make names a CLIP model")
        return open_clip(self._checked({CLIP: clip_of(self._header.clip, self._s3)})[CLIP], self._device)

    def _safety(self) -> Labeler[Evidence]:
        if self._header.safety is None:
            raise AssertionError("a shard with images to check names a safety checker")
        side_models = self._checked({SAFETY: safety_of(self._header.safety, self._s3)})
        return open_safety_checker(side_models[SAFETY], self._device)

    def _checked(self, side_models: dict[str, SideModel]) -> dict[str, SideModel]:
        for kind, side_model in side_models.items():
            planned = self._header.side_models[kind]
            if side_model.digest != planned:
                raise SpecError(
                    "ModelChanged",
                    f"the model {side_model.uri} has the digest {side_model.digest[:12]} here, and had {planned[:12]} "
                    "in the plan; give plan and stages the same model, or plan again.",
                )
        return side_models
