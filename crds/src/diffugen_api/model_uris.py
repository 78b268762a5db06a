"""The addresses of all models that a spec names, and of the files that go with them, by the fields that name them."""

from __future__ import annotations

from collections.abc import Iterable

from diffugen_api.model_images import OCI, ModelImage, read_model_image
from diffugen_api.v1alpha1 import LabeledDatasetSpec, Stage, embeddings_of, loras_of, model_of


def model_uris(spec: LabeledDatasetSpec, stage: Stage | None = None) -> dict[str, str]:
    """Return what the pods of `stage` read, by the field that names it; without `stage`, what the plan reads: all."""
    stages = spec.stages if stage is None else [stage]
    found = {field: uri for each in stages for field, uri in _of_stage(spec, each).items()}
    return found | (_of_side_models(spec) if any(each.draws for each in stages) else {})


def images_of(uris: Iterable[str]) -> list[ModelImage]:
    """Return the images among these addresses, one for each digest."""
    images = (read_model_image(uri) for uri in uris if uri.startswith(OCI))
    return list({image.digest: image for image in images}.values())


def _of_stage(spec: LabeledDatasetSpec, stage: Stage) -> dict[str, str]:
    if stage.textual_inversion is not None:
        return {f"spec.stages[{spec.stages.index(stage)}].{stage.kind}.model": stage.textual_inversion.model}
    model, field = model_of(spec.stages, stage)
    words = {f"{named}.uri": each.uri for named, each in embeddings_of(spec.stages, stage).items() if each.uri}
    return {field: model, **words, **{f"{named}.uri": each.uri for named, each in loras_of(spec.stages, stage).items()}}


def _of_side_models(spec: LabeledDatasetSpec) -> dict[str, str]:
    detector, quality = spec.labeling.detector, spec.quality
    found = {
        "spec.labeling.detector.model": detector and detector.model,
        "spec.labeling.detector.maskModel": detector and detector.mask_model,
        "spec.quality.clipScore.model": quality.clip_score and quality.clip_score.model,
        "spec.quality.safety.model": quality.safety and quality.safety.model,
    }
    return {field: uri for field, uri in found.items() if uri}
