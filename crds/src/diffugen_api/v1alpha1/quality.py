"""`quality`: which images and objects are good enough."""

from __future__ import annotations

from pydantic import ConfigDict, Field, model_validator

from diffugen_api.v1alpha1.base import Model, cel, validations

_AREAS = "minAreaFraction must not be above maxAreaFraction, or no object is kept: lower the one or raise the other"


class Duplicates(Model):
    """Images that look alike: of each group the first stays."""

    max_distance: int = Field(
        default=4,
        ge=0,
        le=10,
        description="Images are alike whose 64-bit perceptual hashes differ in at most this many bits. The first by "
        "sample id stays, the others are rejected.",
    )


class ImageScore(Model):
    """The settings of one score of a whole image, by a model beside the diffusion model."""

    model: str


class ClipScore(ImageScore):
    """How well an image fits its prompt, by a CLIP model."""

    model: str = Field(
        min_length=1,
        max_length=512,
        description="A CLIP model with a processor, in safetensors: hf://ORG/NAME@REVISION, s3://BUCKET/FOLDER or the "
        "path of a folder.",
    )
    min: float = Field(
        default=0.2,
        ge=-1,
        le=1,
        description="Least cosine of the image's and the prompt's embeddings. Changing it runs no model.",
    )


class Safety(ImageScore):
    """Images that a safety checker flags: rejected, never blackened."""

    model: str = Field(
        min_length=1,
        max_length=512,
        description="A checker as Stable Diffusion has it (StableDiffusionSafetyChecker), in safetensors, with its "
        "preprocessor_config.json: hf://ORG/NAME@REVISION, s3://BUCKET/FOLDER or the path of a folder. The folder of a "
        "pipeline that has safety_checker/ and feature_extractor/ is one, too.",
    )
    max: float = Field(
        default=0,
        ge=-1,
        le=1,
        description="How far an image may be above the threshold of one of the checker's concepts: cosine of the "
        "embeddings less the threshold. 0 rejects what diffusers would blacken, less rejects more. Changing it runs no "
        "model.",
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

    min_instances: int = Field(default=1, ge=0, le=1000, description="Fewest objects in an image.")
    min_area_fraction: float = Field(
        default=0.002,
        ge=0,
        le=1,
        description="Smallest object as a fraction of the image; smaller ones are dropped.",
    )
    max_area_fraction: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="Largest object, as a fraction of the image; larger ones are dropped.",
    )
    min_border_distance: int = Field(
        default=0,
        ge=0,
        le=512,
        description="Fewest pixels between an object's box and the image's border; objects nearer are dropped. "
        "1 drops those that touch it.",
    )
    duplicates: Duplicates | None = Field(default=None)
    clip_score: ClipScore | None = Field(default=None)
    safety: Safety | None = Field(default=None)

    @model_validator(mode="after")
    def _leaves_room(self) -> Quality:
        if self.min_area_fraction > self.max_area_fraction:
            raise ValueError(_AREAS)
        return self
