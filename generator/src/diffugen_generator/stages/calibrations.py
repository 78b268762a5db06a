"""The calibration of a stage's attention: read from the store, or made and stored. This module imports torch."""

from __future__ import annotations

from collections.abc import Callable

from diffugen_api.errors import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_api.words import Vocabulary
from diffugen_generator.calibration.annotations import CALIBRATION, adapted, annotations_of
from diffugen_generator.calibration.calibrate import calibrate
from diffugen_generator.calibration.result import Calibration
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.model import DiffusionModel
from diffugen_generator.samples.shards import ShardHeader
from diffugen_generator.store.protocol import Store


def calibrated_by(
    header: ShardHeader, store: Store, s3: S3 | None
) -> Callable[[DiffusionModel, TextStates, Vocabulary], Calibration]:
    """Return a function that returns the calibration of `header`'s stage for its loaded model.

    Pods that make the same calibration at the same time store equal ones, up to rounding; the stored one is used. The
    function raises `SpecError` if the annotated images are not those of the plan.
    """

    def calibrated(model: DiffusionModel, texts: TextStates, vocabulary: Vocabulary) -> Calibration:
        found = Calibration.read(store, header.calibration)
        if found is not None:
            return found
        attention, annotations = header.attention, annotations_of(header.attention, s3)
        if attention is None or annotations is None:
            raise AssertionError("a header with a calibration names its images")
        image = header.drawing["image"]
        size = (int(image["width"]), int(image["height"]))
        added = adapted(header.embeddings, header.loras)
        if annotations.address(attention, header.classes, header.model_digest, added, size) != header.calibration:
            raise SpecError(
                "CalibrationChanged",
                f"{CALIBRATION}: the images or masks have changed since the plan; plan again, or restore them.",
            )
        images = annotations.opened(header.classes, size, field=CALIBRATION)
        calibrate(model, texts, vocabulary, images, attention).write(store, header.calibration)
        stored = Calibration.read(store, header.calibration)
        if stored is None:
            raise AssertionError("the calibration was just stored")
        return stored

    return calibrated
