"""`quality`: which images and objects are good enough."""

from __future__ import annotations

from pydantic import ConfigDict, Field, model_validator

from diffugen_api.v1alpha1.base import Model, ModelUri, cel, validations

_AREAS = "minAreaFraction must not be above maxAreaFraction, or no object is kept: lower the first or raise the second"


class Duplicates(Model):
    """Near duplicates: the first image of each group is kept."""

    max_distance: int = Field(
        default=4,
        ge=0,
        le=10,
        description="Images are near duplicates if their 64-bit perceptual hashes differ in at most this many bits. "
        "The one with the first sample id is kept, the others are rejected.",
    )


class ImageScore(Model):
    """The settings of one score of a whole image, by a model beside the diffusion model."""

    model: str


class ClipScore(ImageScore):
    """How well an image fits its prompt, by a CLIP model."""

    model: ModelUri = Field(
        description="A CLIP model with a processor, in safetensors: hf://ORG/NAME@REVISION, s3://BUCKET/FOLDER, "
        "oci://REGISTRY/REPOSITORY@sha256:DIGEST#/FOLDER, or the path of a folder.",
    )
    min: float = Field(
        default=0.2,
        ge=-1,
        le=1,
        description="Lowest cosine of the embeddings of the image and of the prompt. A change runs no model.",
    )


class Safety(ImageScore):
    """Images that a safety checker flags are rejected; their pixels are not changed."""

    model: ModelUri = Field(
        description="A StableDiffusionSafetyChecker in safetensors, with its preprocessor_config.json: "
        "hf://ORG/NAME@REVISION, s3://BUCKET/FOLDER, oci://REGISTRY/REPOSITORY@sha256:DIGEST#/FOLDER, or the path of "
        "a folder. The folder of a pipeline with safety_checker/ and feature_extractor/ is also accepted.",
    )
    max: float = Field(
        default=0,
        ge=-1,
        le=1,
        description="Highest allowed score: the cosine of the embeddings of the image and of a concept of the checker, "
        "minus the concept's threshold. 0 rejects the images that diffusers blackens; a lower value rejects more. A "
        "change runs no model.",
    )


class Quality(Model):
    """Which images are good enough. Rejected ones stay in the manifest, with the reason."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel(
                "(has(self.minAreaFraction) ? double(self.minAreaFraction) : 0.002) <= "
                "(has(self.maxAreaFraction) ? double(self.maxAreaFraction) : 0.95)",
                _AREAS,
            )
        )
    )

    min_instances: int = Field(
        default=1, ge=0, le=1000, description="Smallest number of objects in an image; images with fewer are rejected."
    )
    min_area_fraction: float = Field(
        default=0.002,
        ge=0,
        le=1,
        description="Smallest area of an object, as a fraction of the image; smaller objects are dropped.",
    )
    max_area_fraction: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="Largest area of an object, as a fraction of the image; larger objects are dropped.",
    )
    min_border_distance: int = Field(
        default=0,
        ge=0,
        le=512,
        description="Smallest distance between an object's box and the border of the image, in pixels; objects "
        "nearer to it are dropped. 1 drops the objects that touch the border.",
    )
    duplicates: Duplicates | None = Field(default=None)
    clip_score: ClipScore | None = Field(default=None)
    safety: Safety | None = Field(default=None)

    @model_validator(mode="after")
    def _leaves_room(self) -> Quality:
        if self.min_area_fraction > self.max_area_fraction:
            raise ValueError(_AREAS)
        return self
