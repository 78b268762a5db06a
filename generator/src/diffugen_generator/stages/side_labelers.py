"""The labelers beside the diffusion model, for the samples of one shard. Each is loaded when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.labeling.findings import Findings
from diffugen_generator.labeling.labeler import Evidence, Labeler, LabelInput
from diffugen_generator.labeling.side_model_registry import find_in_shard, open_for_shard
from diffugen_generator.models.side_models import SideModel
from diffugen_generator.samples.shards import ShardHeader
from diffugen_generator.stages.batch_sizes import AdaptiveBatch


class SideLabelers:
    """The labelers and scores that a shard asks for (`labeling.side_model_registry`), in the largest batches that fit.

    A model is compared with the digest in the plan before it labels anything.
    """

    def __init__(self, header: ShardHeader, device: torch.device, s3: S3 | None = None) -> None:
        """Prepare to load models to `device`; nothing is loaded yet. `s3` is the store that `s3://` means."""
        self._s3 = s3
        self._header = header
        self._device = device
        self._open: dict[str, Labeler[Evidence]] = {}
        self._adaptive = AdaptiveBatch("show the other models")

    def open(self) -> None:
        """Load all labelers that the shard asks for; raise `SpecError` if one cannot be loaded."""
        for kind in self._header.side_evidence_ids:
            self._labeler(kind)

    def complete(self, seen: Sequence[LabelInput], found: Sequence[Findings]) -> list[Findings]:
        """Return `found`, each completed with the missing evidence of its image in `seen`."""
        return self._adaptive.each(self._complete, list(zip(seen, found, strict=True)))

    def _complete(self, pairs: Sequence[tuple[LabelInput, Findings]]) -> list[Findings]:
        seen, found = zip(*pairs, strict=True)
        whole: list[Findings] = list(found)
        for kind in self._header.side_evidence_ids:
            if lacking := [index for index, each in enumerate(whole) if kind not in each.beside]:
                new = self._labeler(kind).look([seen[index] for index in lacking])
                for index, evidence in zip(lacking, new, strict=True):
                    whole[index] = whole[index].completed(kind, evidence)
        return whole

    def _labeler(self, kind: str) -> Labeler[Evidence]:
        if kind not in self._open:
            side_models = find_in_shard(self._header, kind, self._s3)
            for key, side_model in side_models.items():
                self._check(key, side_model)
            self._open[kind] = open_for_shard(self._header, kind, side_models, self._device)
        return self._open[kind]

    def _check(self, key: str, side_model: SideModel) -> None:
        planned = self._header.side_models[key]
        if side_model.digest != planned:
            raise SpecError(
                "ModelChanged",
                f"the model {side_model.uri} has the digest {side_model.digest[:12]} here, and had {planned[:12]} "
                "in the plan; give plan and stages the same model, or plan again.",
            )
