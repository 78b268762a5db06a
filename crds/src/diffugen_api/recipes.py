"""The addresses of a spec's images, evidence and labels, and the revision of the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from diffugen_api.addresses import address
from diffugen_api.prompt_reading import read_prompt
from diffugen_api.v1alpha1 import (
    ClipScore,
    DetectorLabeling,
    ImageScore,
    LabeledDatasetSpec,
    ObjectClass,
    Quality,
    Safety,
    Stage,
    tokens_of,
)
from diffugen_api.words import Vocabulary

RECIPE_VERSION = 1
"""Raised when the same recipe gives other images."""
EVIDENCE_VERSION = 1
"""Raised when the attention maps change for the same settings."""
DETECTION_VERSION = 1
"""Raised when a detector's output is read differently."""
CLIP_VERSION = 1
"""Raised when the inputs of a CLIP model change."""
SAFETY_VERSION = 1
"""Raised when a safety checker's output is read differently."""
DECISION_VERSION = 1
"""Raised when the same evidence and thresholds lead to other labels."""

_CONTENT_FIELDS = ("classes", "image", "seed", "prompts", "stages", "labeling", "quality", "regenerateToken")
_CONTENT_OUTPUT_FIELDS = ("formats", "splits")

_PROMPTS_ADDED_LATER: Mapping[str, Any] = {
    "combine": "product",
    "sample": None,
    "syntax": "auto",
    "file": None,
    "fileSHA256": None,
}
_ATTENTION_ADDED_LATER: Mapping[str, Any] = {
    "ignoreBand": 0,
    "minPresence": None,
    "fragmentFraction": 0,
    "rescale": False,
    "headWeights": "equal",
    "calibration": None,
}
_CALIBRATION_ADDED_LATER: Mapping[str, Any] = {"backgroundToken": False}
_CLASS_ADDED_LATER: Mapping[str, Any] = {"detectorClass": None}
_LABELING_ADDED_LATER: Mapping[str, Any] = {"detector": None, "agreement": 0.5}
_QUALITY_ADDED_LATER: Mapping[str, Any] = {
    "minBorderDistance": 0,
    "duplicates": None,
    "clipScore": None,
    "safety": None,
}
_OUTPUT_ADDED_LATER: Mapping[str, Mapping[str, Any]] = {
    "coco": {"segmentation": "auto"},
    "yolo": {"task": "segment"},
}
"""Fields of the manifest that were added after the first release, with their defaults. A default is not part of an
address, so specs that do not use the field keep the addresses that they had before."""


def revision_of(spec: LabeledDatasetSpec) -> str:
    """Return the revision: ten hex digits of a hash over everything that decides the published content.

    `run`, `suspend` and the location of the store are not part of it, because they do not change the content.
    """
    data = spec.model_dump(mode="json", by_alias=True)
    content = {field: data[field] for field in _CONTENT_FIELDS}
    content["prompts"] = _without(_PROMPTS_ADDED_LATER, content["prompts"])
    content["prompts"].pop("maxBytes")  # a bound, which changes no content
    content["stages"] = [{"name": stage.name, stage.kind: stage.content} for stage in spec.stages]
    content["classes"] = [_without(_CLASS_ADDED_LATER, each) for each in data["classes"]]
    content["labeling"] = _without(_LABELING_ADDED_LATER, data["labeling"])
    if attention := data["labeling"].get("attention"):
        content["labeling"]["attention"] = _without(_ATTENTION_ADDED_LATER, attention)
        if calibration := attention.get("calibration"):
            content["labeling"]["attention"]["calibration"] = _without(_CALIBRATION_ADDED_LATER, calibration)
    content["quality"] = _without(_QUALITY_ADDED_LATER, data["quality"])
    content["output"] = {field: data["output"][field] for field in _CONTENT_OUTPUT_FIELDS}
    for name, defaults in _OUTPUT_ADDED_LATER.items():
        if options := _without(defaults, data["output"][name] or {}):
            content["output"][name] = options
    return address(content, 10)


def _without(defaults: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `data` without the fields that have their default."""
    return {field: value for field, value in data.items() if field not in defaults or value != defaults[field]}


def store_of(spec: LabeledDatasetSpec) -> str:
    """Return a hash over the store's location without credentials. Defaults are left out: fields can be added later."""
    s3 = spec.output.s3
    if s3 is None:
        return address(None, 10)
    return address(s3.model_dump(mode="json", by_alias=True, exclude={"secret_ref"}, exclude_defaults=True), 10)


DETECTOR, MASKS, CLIP, SAFETY = "detector", "masks", "clip", "safety"
"""Keys of the digests of the models other than the diffusion model. All except `MASKS` are also kinds of evidence."""


@dataclass(frozen=True, slots=True)
class ScoreKind:
    """A score of a whole image, as the API knows it."""

    field: str
    """The attribute of `Quality` with its settings."""
    settings: type[ImageScore]
    version: int
    """The version of its evidence; part of the evidence id."""


SCORES: Final[dict[str, ScoreKind]] = {
    CLIP: ScoreKind("clip_score", ClipScore, CLIP_VERSION),
    SAFETY: ScoreKind("safety", Safety, SAFETY_VERSION),
}
"""The scores by kind. A kind is also the key of the score in shards and label files."""


def scores_of(quality: Quality) -> dict[str, ImageScore]:
    """Return the settings of the scores that `quality` asks for, by kind."""
    found = {kind: getattr(quality, score.field) for kind, score in SCORES.items()}
    return {kind: settings for kind, settings in found.items() if settings is not None}


@dataclass(frozen=True, slots=True)
class StageRecipe:
    """The settings that all samples of a stage share, and the addresses of its evidence and labels."""

    stage: str
    kind: str
    drawing: Mapping[str, Any]
    """Everything that decides an image except prompt and seed."""
    evidence_id: str
    """The id of the attention maps; empty if attention labels nothing."""
    label_id: str
    side_evidence_ids: Mapping[str, str] = field(default_factory=dict)
    """Evidence ids of the side models, by kind: `DETECTOR`, `CLIP`, `SAFETY`."""
    source: StageRecipe | None = None
    """The recipe of the stage that this one draws from."""
    replaces: bool = False
    """Whether this stage, or one that it draws from, replaces objects."""

    @property
    def extension(self) -> str:
        """The file name extension of the images."""
        return str(self.drawing["image"]["format"])

    @property
    def evidence_ids(self) -> tuple[str, ...]:
        """All evidence that a label is decided from."""
        own = (self.evidence_id,) if self.evidence_id else ()
        return (*own, *self.side_evidence_ids.values())


def stage_recipe(
    spec: LabeledDatasetSpec,
    stage: Stage,
    model_digest: str,
    embeddings: Mapping[str, str] | None = None,
    *,
    loras: Sequence[tuple[str, float]] = (),
    source: StageRecipe | None = None,
    side_models: Mapping[str, str] | None = None,
    calibration: str = "",
) -> StageRecipe:
    """Return the recipe of a stage.

    `model_digest` is the SHA-256 of the model's files. `embeddings` has the SHA-256 of the file of each token, and
    `loras` the SHA-256 and the weight of each LoRA. `source` is the recipe of the stage that this one draws from.
    `side_models` has the digests of the other models that the spec asks for, by `DETECTOR`, `MASKS`, `CLIP` and
    `SAFETY`. `calibration` is the address of the attention's calibration.
    """
    if (source and source.stage) != stage.source:
        raise ValueError(f"stage {stage.name!r} draws from {stage.source!r}, not from {source and source.stage!r}")
    drawing: dict[str, Any] = {
        "version": RECIPE_VERSION,
        "kind": stage.kind,
        "model": model_digest,
        "image": spec.image.model_dump(mode="json", by_alias=True),
        "negative": spec.prompts.negative,
        "settings": stage.task.settings(),
    }
    if isinstance(negative := read_prompt(spec, spec.prompts.negative, "spec.prompts.negative"), tuple):
        drawing["negativeWeights"] = [list(piece) for piece in negative]
    if embeddings:
        drawing["embeddings"] = {token.lower(): digest for token, digest in embeddings.items()}
    if loras:
        drawing["loras"] = [list(each) for each in sorted(loras)]
    evidence_id = _attention_id(spec, model_digest, calibration)
    side_evidence_ids = _side_evidence_ids(spec, side_models or {})
    replaces = stage.task.inpaints or (source is not None and source.replaces)
    label_id = _label_id(spec, evidence_id, side_evidence_ids, replaces=replaces)
    return StageRecipe(stage.name, stage.kind, drawing, evidence_id, label_id, side_evidence_ids, source, replaces)


def _attention_id(spec: LabeledDatasetSpec, model_digest: str, calibration: str) -> str:
    attention = spec.labeling.attention
    if attention is None:
        return ""
    return address(
        {
            "version": EVIDENCE_VERSION,
            "model": model_digest,
            "attention": {
                "capture": attention.capture,
                "refine": attention.refine,
                **({} if attention.min_presence is None else {"presence": True}),
                **({"calibration": calibration} if calibration else {}),
                **({"rescale": True} if attention.rescale else {}),
                **({} if attention.head_weights == "equal" else {"headWeights": attention.head_weights}),
            },
            "words": {c.name: list(c.words) for c in spec.classes},
            "background": sorted(attention.background),
            **_tokens(spec, attention.background),
        }
    )


def _tokens(spec: LabeledDatasetSpec, background: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the tokens of textual inversion that contain words of the dataset; other tokens change no label."""
    words = Vocabulary({c.name: c.words for c in spec.classes}, background)
    tokens = [token for token in tokens_of(spec.stages) if words.words_inside(token)]
    return {"tokens": tokens} if tokens else {}  # added later; it is not in the address of other evidence


def _side_evidence_ids(spec: LabeledDatasetSpec, side_models: Mapping[str, str]) -> dict[str, str]:
    found = {}
    if (detector := spec.labeling.detector) is not None:
        seen: dict[str, Any] = {"version": DETECTION_VERSION, "type": detector.type, "model": side_models[DETECTOR]}
        if detector.type == "open-vocabulary":
            seen |= {"masks": side_models[MASKS], "words": sorted(detector_words(spec.classes))}
        found[DETECTOR] = address(seen)
    for kind in scores_of(spec.quality):
        found[kind] = address({"version": SCORES[kind].version, kind: side_models[kind]})
    return found


def detector_words(classes: Sequence[ObjectClass]) -> dict[str, str]:
    """Return the words that an open-vocabulary detector searches for, each with the detector's name of its class.

    A class with a `detectorClass` is searched for only by that, any other class by all its words.
    """
    words: dict[str, str] = {}
    for each in classes:
        for word in (each.detector_class,) if each.detector_class else each.words:
            words.setdefault(word, each.detected_as)
    return words


def classes_by_native(detector: DetectorLabeling, classes: Sequence[ObjectClass]) -> dict[str, list[ObjectClass]]:
    """Return the classes for each of the detector's names, in lower case; classes can share a name."""
    sharing: dict[str, list[ObjectClass]] = {}
    for each in classes:
        for native in detector_words([each]) if detector.type == "open-vocabulary" else [each.detected_as]:
            sharing.setdefault(native.casefold(), []).append(each)
    return sharing


def _label_id(
    spec: LabeledDatasetSpec, evidence_id: str, side_evidence_ids: Mapping[str, str], *, replaces: bool
) -> str:
    attention, detector = spec.labeling.attention, spec.labeling.detector
    decided: dict[str, Any] = {"version": DECISION_VERSION}
    if attention is not None:
        decided |= {"evidence": evidence_id, "threshold": attention.threshold, "snap": attention.snap}
        added_later = {
            "ignoreBand": attention.ignore_band,
            "minPresence": attention.min_presence,
            "fragmentFraction": attention.fragment_fraction,
        }
        decided |= _without(_ATTENTION_ADDED_LATER, added_later)
    if detector is not None:
        decided |= {
            "detections": side_evidence_ids[DETECTOR],
            "confidence": detector.confidence,
            "iou": detector.iou,
            "classes": [[c.name, c.detected_as, sorted(c.words)] for c in sorted(spec.classes, key=lambda c: c.name)],
            **_tokens(spec),
        }
        if replaces and any(len(some) > 1 for some in classes_by_native(detector, spec.classes).values()):
            decided["toldBy"] = "replacements"  # added later; it is not in the address of other labels
    if attention is not None and detector is not None:
        decided["agreement"] = spec.labeling.agreement
    decided |= {kind: side_evidence_ids[kind] for kind in SCORES if kind in side_evidence_ids}
    return address(decided)
