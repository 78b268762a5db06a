"""All evidence of one image, and the label that is decided from it. On a CPU, without torch.

With one labeler, its objects are the label. With both, the label has the objects on which they agree. Image statistics
and the scores of CLIP and of a safety checker are part of the label, so that `quality` needs only the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from diffugen_api.plan import Sample
from diffugen_api.prompt_weights import plain
from diffugen_api.recipes import DETECTOR
from diffugen_generator.labeling.decide.agreement import agree
from diffugen_generator.labeling.decide.from_attention import Decision, decision_of
from diffugen_generator.labeling.decide.from_detections import choose
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.evidence.detections import Detections
from diffugen_generator.labeling.evidence.image_statistics import statistics_of
from diffugen_generator.labeling.evidence.scores import Score
from diffugen_generator.labeling.labeler import Evidence
from diffugen_generator.labeling.side_model_registry import SIDE_MODELS
from diffugen_generator.samples.labels import Instance, Label, MarkedInstance
from diffugen_generator.samples.shards import ShardHeader

T = TypeVar("T")


class Reader(Protocol):
    """Reads one stored evidence file of a sample."""

    def __call__(self, evidence_id: str, loads: Callable[[bytes, str], T], /) -> T | None:
        """Return the result of `loads` for the file's bytes and the sample's id; None if the file does not exist."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The evidence of one image. Evidence of labelers that are not requested is absent."""

    attention: AttentionMaps | None = None
    beside: Mapping[str, Evidence] = field(default_factory=dict)
    """Evidence of the models beside the diffusion model, by kind (`side_model_registry.SIDE_MODELS`)."""

    @property
    def detections(self) -> Detections | None:
        """The detector's evidence."""
        found = self.beside.get(DETECTOR)
        return found if isinstance(found, Detections) else None

    @property
    def scores(self) -> dict[str, float]:
        """The scores of the whole image, by kind."""
        return {kind: found.value for kind, found in self.beside.items() if isinstance(found, Score)}

    def completed(self, kind: str, evidence: Evidence) -> Findings:
        """Return these findings with the evidence of one more kind."""
        return replace(self, beside={**self.beside, kind: evidence})

    def files(self, header: ShardHeader) -> dict[str, Evidence]:
        """Return the evidence to store, by evidence id."""
        ids = header.side_evidence_ids
        found: dict[str, Evidence] = {ids[kind]: each for kind, each in self.beside.items() if kind in ids}
        if header.evidence_id and self.attention is not None:
            found[header.evidence_id] = self.attention
        return found

    @classmethod
    def read(cls, header: ShardHeader, read: Reader) -> Findings:
        """Read the evidence that `header` asks for, each file with `read`; raise the errors of `read`."""
        beside = {
            kind: _read(read, evidence_id, SIDE_MODELS[kind].load)
            for kind, evidence_id in header.side_evidence_ids.items()
        }
        return cls(
            attention=_read(read, header.evidence_id, AttentionMaps.loads),
            beside={kind: found for kind, found in beside.items() if found is not None},
        )


def label_of(sample: Sample, image: NDArray[np.uint8], findings: Findings, header: ShardHeader) -> Label:
    """Decide the label of a sample from its image [height, width, 3] and the findings in it."""
    statistics = statistics_of(image)
    attended = None
    if header.attention is not None and findings.attention is not None:
        attended = decision_of(findings.attention, image, header.attention)
    instances, marked = _objects(sample, findings, header, attended)
    ignored = tuple(attended.ignored) if attended is not None else ()
    return Label(
        sample.id,
        tuple(instances),
        marked=tuple(marked),
        statistics=statistics.row(),
        scores=findings.scores,
        ignored=ignored,
    )


def _objects(
    sample: Sample, findings: Findings, header: ShardHeader, decided: Decision | None
) -> tuple[list[Instance], list[MarkedInstance]]:
    attended = None if decided is None else decided.instances
    detected = None
    if header.detector is not None and findings.detections is not None:
        prompt = plain(sample.text)
        detected = choose(
            findings.detections, header.detector, header.classes, prompt, sample.words, tokens=header.tokens
        )
    if attended is not None and detected is not None:
        return agree(attended, detected, header.agreement)
    return (attended if attended is not None else detected or []), []


def _read(read: Reader, evidence_id: str, loads: Callable[[bytes, str], T]) -> T | None:
    return read(evidence_id, loads) if evidence_id else None
