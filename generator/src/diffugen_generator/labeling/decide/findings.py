"""All that models saw in one picture, and the label that is decided from it. On a CPU, without torch.

With one labeller its objects stand; with both, those that they agree on. How the picture looks, and what CLIP
and a safety checker say of it, goes into the label as well, so that `quality` is decided from labels alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from diffugen_api.plan import Sample
from diffugen_api.prompt_weights import plain
from diffugen_api.recipes import CLIP, DETECTOR, SAFETY
from diffugen_generator.failures import BadShard
from diffugen_generator.labeling.decide.agreement import agree
from diffugen_generator.labeling.decide.from_attention import Decision, decision_of
from diffugen_generator.labeling.decide.from_detections import choose
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.evidence.detections import Detections
from diffugen_generator.labeling.evidence.image_statistics import statistics_of
from diffugen_generator.labeling.evidence.scores import Fit, Margin
from diffugen_generator.labeling.labeler import Evidence
from diffugen_generator.samples.labels import Instance, Label, MarkedInstance
from diffugen_generator.samples.shards import ShardHeader

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Findings:
    """The evidence in one picture; what no labeller was asked for is absent."""

    attention: AttentionMaps | None = None
    detections: Detections | None = None
    clip: Fit | None = None
    safety: Margin | None = None

    def files(self, header: ShardHeader) -> dict[str, Evidence]:
        """Return what there is, by the evidence id that it is kept under."""
        found = {
            header.evidence_id: self.attention,
            header.side_evidence_ids.get(DETECTOR, ""): self.detections,
            header.side_evidence_ids.get(CLIP, ""): self.clip,
            header.side_evidence_ids.get(SAFETY, ""): self.safety,
        }
        return {key: evidence for key, evidence in found.items() if key and evidence is not None}

    @classmethod
    def read(cls, header: ShardHeader, read: Callable[[str], bytes | None]) -> Findings:
        """Read what `header` asks for; `read` returns the file kept under an evidence id, or None where there is none.

        Raises `BadShard` where a file is none of ours, and what `read` raises.
        """
        ids = header.side_evidence_ids
        return cls(
            attention=_loaded(AttentionMaps.loads, header.evidence_id, read),
            detections=_loaded(Detections.loads, ids.get(DETECTOR, ""), read),
            clip=_loaded(Fit.loads, ids.get(CLIP, ""), read),
            safety=_loaded(Margin.loads, ids.get(SAFETY, ""), read),
        )


def label_of(sample: Sample, picture: NDArray[np.uint8], findings: Findings, header: ShardHeader) -> Label:
    """Decide the label of a sample whose picture [height, width, 3] is `picture`."""
    statistics = statistics_of(picture)
    told = {CLIP: findings.clip, SAFETY: findings.safety}
    scores = {kind: score.value for kind, score in told.items() if score is not None}
    attended = None
    if header.attention is not None and findings.attention is not None:
        attended = decision_of(findings.attention, picture, header.attention)
    instances, marked = _objects(sample, findings, header, attended)
    ignored = tuple(attended.ignored) if attended is not None else ()
    return Label(
        sample.id,
        tuple(instances),
        marked=tuple(marked),
        statistics=statistics.row(),
        scores=scores,
        ignored=ignored,
    )


def _objects(
    sample: Sample, findings: Findings, header: ShardHeader, decided: Decision | None
) -> tuple[list[Instance], list[MarkedInstance]]:
    attended = None if decided is None else decided.instances
    detected = None
    if header.detector is not None and findings.detections is not None:
        detected = choose(findings.detections, header.detector, header.classes, plain(sample.text), sample.words)
    if attended is not None and detected is not None:
        return agree(attended, detected, header.agreement)
    return (attended if attended is not None else detected or []), []


def _loaded(loads: Callable[[bytes], T], evidence_id: str, read: Callable[[str], bytes | None]) -> T | None:
    data = read(evidence_id) if evidence_id else None
    if data is None:
        return None
    try:
        return loads(data)
    except ValueError as error:
        raise BadShard(f"evidence {evidence_id}: {error}; delete it and plan again") from error
