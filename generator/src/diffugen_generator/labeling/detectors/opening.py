"""Loads the detector that a manifest names. One branch for each type of detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from diffugen_api.recipes import DETECTOR, MASKS, detector_words
from diffugen_api.v1alpha1 import DetectorLabeling, ObjectClass
from diffugen_generator.labeling.evidence.detections import Detections
from diffugen_generator.labeling.labeler import Labeler
from diffugen_generator.models.side_models import SideModel


def open_detector(
    settings: DetectorLabeling,
    side_models: Mapping[str, SideModel],
    classes: Sequence[ObjectClass],
    device: torch.device,
) -> Labeler[Detections]:
    """Load the detector that `settings` ask for; `side_models` are its models.

    Raises `SpecError` with reason `MissingExtra` if its library is not installed, and with reason `UnsupportedModel` if
    its files cannot be loaded.
    """
    if settings.type == "yolo":
        from diffugen_generator.labeling.detectors.yolo import Yolo  # noqa: PLC0415 - an extra, under the AGPL

        return Yolo(side_models[DETECTOR], device)
    if settings.type == "open-vocabulary":
        from diffugen_generator.labeling.detectors.open_vocabulary import OpenVocabulary  # noqa: PLC0415

        return OpenVocabulary(side_models[DETECTOR], side_models[MASKS], sorted(detector_words(classes)), device)
    from diffugen_generator.labeling.detectors.segmenter import Segmenter  # noqa: PLC0415

    return Segmenter(side_models[DETECTOR], device)
