"""The registry of the models beside the diffusion model: detectors, CLIP and safety checkers, one entry for each kind.

An entry finds the model's files, loads the labeler, reads its evidence back, and rejects images by it. Torch is
imported when a labeler is loaded, not before. To add a score of whole images, add its settings to `Quality`, its
`ScoreKind` to `diffugen_api.recipes`, its model to `labeling.detectors`, and its entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from diffugen_api.recipes import CLIP, DETECTOR, SAFETY, scores_of
from diffugen_api.v1alpha1 import S3, LabeledDatasetSpec, ObjectClass, Quality
from diffugen_generator.labeling.evidence.scores import Fit, Margin
from diffugen_generator.labeling.labeler import Evidence, Labeler
from diffugen_generator.models.side_models import (
    CHECKERS,
    CLIPS,
    SideModel,
    check_classes,
    detectors_of,
    find_folder,
)
from diffugen_generator.samples.shards import ShardHeader

if TYPE_CHECKING:
    import torch

Settings = Any
"""The part of the manifest that asks for a kind: `DetectorLabeling`, or a subclass of `ImageScore`."""
Find = Callable[[Settings, S3 | None, bool], dict[str, SideModel]]
"""Finds the models of some settings, by key. `S3` is the store that `s3://` means. With False, the weights of remote
models are not fetched. Raises `SpecError` naming the field."""
Open = Callable[[Settings, Mapping[str, SideModel], Sequence[ObjectClass], "torch.device"], Labeler[Evidence]]
"""Loads the labeler of some settings from their models. Raises `SpecError` if it cannot be loaded."""


@dataclass(frozen=True, slots=True)
class SideModelKind:
    """One kind of labeler or score beside the diffusion model."""

    find: Find
    open: Open
    load: Callable[[bytes, str], Evidence]
    """Reads the evidence file of a sample; raises `ValueError` if it is damaged or not one of this kind."""
    reason: str = ""
    """For a score: the reason for which it rejects an image, in CamelCase."""
    rejects: Callable[[Settings, float], bool] = lambda _settings, _value: False
    """For a score: whether the settings reject an image with this value."""


def side_models_of(spec: LabeledDatasetSpec, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, SideModel]:
    """Find the models beside the diffusion model that a spec asks for, by key, without the weights of remote ones.

    Keys are `DETECTOR`, `MASKS` and the kinds of scores. Models whose URI is not `wanted` are left out. Raises
    `SpecError` naming the field: `UnknownModel`, `UnsupportedModel`, or `UnknownDetectorClass` if the detector does
    not know a class.
    """
    found: dict[str, SideModel] = {}
    for kind, settings in _settings_of(spec).items():
        if wanted(settings.model):
            found |= SIDE_MODELS[kind].find(settings, spec.output.s3, False)
    if DETECTOR in found:
        check_classes(spec.classes, found[DETECTOR])
    return found


def find_in_shard(header: ShardHeader, kind: str, s3: S3 | None) -> dict[str, SideModel]:
    """Find the models of one kind that a shard asks for, with their weights; raise `SpecError` naming the field."""
    return SIDE_MODELS[kind].find(_settings_in(header, kind), s3, True)


def open_for_shard(
    header: ShardHeader, kind: str, side_models: Mapping[str, SideModel], device: torch.device
) -> Labeler[Evidence]:
    """Load the labeler of one kind that a shard asks for, from its models; raise `SpecError` if it cannot be loaded."""
    return SIDE_MODELS[kind].open(_settings_in(header, kind), side_models, header.classes, device)


def rejecting_score(scores: Mapping[str, float], quality: Quality) -> str:
    """Return the reason for which `quality` rejects an image with these scores, by kind; empty if it does not."""
    # The last kind is checked first: an unsafe image is reported as unsafe for every CLIP score.
    for kind, settings in reversed(scores_of(quality).items()):
        if SIDE_MODELS[kind].rejects(settings, scores[kind]):
            return SIDE_MODELS[kind].reason
    return ""


def _settings_of(spec: LabeledDatasetSpec) -> dict[str, Settings]:
    detector = spec.labeling.detector
    return {**({} if detector is None else {DETECTOR: detector}), **scores_of(spec.quality)}


def _settings_in(header: ShardHeader, kind: str) -> Settings:
    settings = header.detector if kind == DETECTOR else header.scores.get(kind)
    if settings is None:
        raise AssertionError(f"a shard with evidence of kind {kind} has the settings of its model")
    return settings


def _find_detector(settings: Settings, s3: S3 | None, weights: bool) -> dict[str, SideModel]:
    return detectors_of(settings, s3, weights=weights)


def _open_detector(
    settings: Settings, side_models: Mapping[str, SideModel], classes: Sequence[ObjectClass], device: torch.device
) -> Labeler[Evidence]:
    from diffugen_generator.labeling.detectors.opening import open_detector  # noqa: PLC0415 - imports torch

    return open_detector(settings, side_models, classes, device)


def _load_detections(data: bytes, sample_id: str) -> Evidence:
    from diffugen_generator.labeling.evidence.detections import Detections  # noqa: PLC0415 - imports pycocotools

    return Detections.loads(data, sample_id)


def _find_clip(settings: Settings, s3: S3 | None, weights: bool) -> dict[str, SideModel]:
    return {CLIP: find_folder(settings.model, CLIPS, "spec.quality.clipScore.model", s3, weights=weights)}


def _open_clip(
    _: Settings, side_models: Mapping[str, SideModel], __: Sequence[ObjectClass], device: torch.device
) -> Labeler[Evidence]:
    from diffugen_generator.labeling.detectors.clip import Clip  # noqa: PLC0415 - imports torch

    return Clip(side_models[CLIP], device)


def _find_safety_checker(settings: Settings, s3: S3 | None, weights: bool) -> dict[str, SideModel]:
    return {SAFETY: find_folder(settings.model, CHECKERS, "spec.quality.safety.model", s3, weights=weights)}


def _open_safety_checker(
    _: Settings, side_models: Mapping[str, SideModel], __: Sequence[ObjectClass], device: torch.device
) -> Labeler[Evidence]:
    from diffugen_generator.labeling.detectors.safety import SafetyChecker  # noqa: PLC0415 - imports torch

    return SafetyChecker(side_models[SAFETY], device)


SIDE_MODELS: Final[dict[str, SideModelKind]] = {
    DETECTOR: SideModelKind(_find_detector, _open_detector, _load_detections),
    CLIP: SideModelKind(
        _find_clip,
        _open_clip,
        Fit.loads,
        reason="BelowClipScore",
        rejects=lambda settings, cosine: cosine < settings.min,
    ),
    SAFETY: SideModelKind(
        _find_safety_checker,
        _open_safety_checker,
        Margin.loads,
        reason="Unsafe",
        rejects=lambda settings, margin: margin > settings.max,
    ),
}
"""All kinds, by the key of their evidence in `StageRecipe.side_evidence_ids`."""
