"""`labeling`: who says what is where in an image."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from diffugen_api.v1alpha1.base import Model, Word, cel, validations

LEAST_CONFIDENCE = 0.05
"""Detections below it are not even kept as evidence, so no setting may ask for them."""

_ONE_LABELLER = "labeling names no labeler: give attention: {}, or a detector, or both"
_MASK_MODEL = "maskModel goes with type open-vocabulary, which needs it to turn boxes into masks: add or remove it"
_PIN = "a .pt file runs code when it is loaded: pin it by sha256, or use another type of detector"


class AttentionLabeling(Model):
    """Labels from the diffusion model's own cross-attention, without any detector.

    `posthoc` noises the finished image a little and reads the attention of one more UNet pass over it. `inline`
    sums attention over all sampling steps, as DAAM does.
    """

    capture: Literal["posthoc", "inline"] = Field(
        default="posthoc",
        description="When attention is read: posthoc is one extra pass over the finished image; inline sums all "
        "sampling steps, and draws an image that is there already once more to see it.",
    )
    refine: bool = Field(
        default=True,
        description="Spread the maps along the model's self-attention, so that they fill their objects.",
    )
    threshold: Annotated[float, Field(ge=0.05, le=0.95)] | Literal["auto"] = Field(
        default=0.4,
        description="Part of a map's range above which a pixel is the object's: 0.05 to 0.95, or auto, which takes for "
        "each object the threshold whose outline fits the image's edges best.",
    )
    ignore_band: float = Field(
        default=0,
        ge=0,
        le=0.5,
        description="Pixels of no object whose map stands less than this below the threshold are published as to be "
        "ignored; 0 is none.",
    )
    min_presence: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Label a class only where its words lessen the model's prediction error by this share; 0.05 suits "
        "builtin://shapes. It costs two UNet passes an image and two for each class that the prompt names. Not "
        "checked where absent.",
    )
    snap: bool = Field(default=True, description="Snap uncertain borders to the image's colours.")
    background: list[Word] = Field(
        default_factory=list,
        max_length=32,
        description="Words for what is no object; where the prompt names them, they compete for pixels that are not "
        "certain.",
    )


class DetectorLabeling(Model):
    """Labels from a model that was trained to find objects. Its classes are known by name, never by number."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel("has(self.maskModel) == (self.type == 'open-vocabulary')", _MASK_MODEL),
            cel("self.type != 'yolo' || has(self.sha256)", _PIN),
        )
    )

    type: Literal["transformers", "yolo", "open-vocabulary"] = Field(
        description="transformers: an instance segmenter such as Mask2Former or RF-DETR. yolo: an Ultralytics "
        "segmentation model (AGPL-3.0; needs the extra `yolo`). open-vocabulary: Grounding DINO or OWLv2 finds boxes "
        "by the words of the classes, and SAM 2 turns them into masks.",
    )
    model: str = Field(
        min_length=1,
        max_length=512,
        description="builtin://shapes-segmenter, or a folder with safetensors weights: hf://ORG/NAME@REVISION, "
        "s3://BUCKET/FOLDER or a path; for yolo a .pt file: a path, s3://BUCKET/FILE or hf://ORG/NAME@REVISION/FILE.",
    )
    sha256: str | None = Field(
        default=None,
        max_length=64,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the .pt file, which is refused if it has another; needed for yolo.",
    )
    mask_model: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="open-vocabulary: the SAM 2 model that turns boxes into masks, as `model` is given.",
    )
    confidence: float = Field(
        default=0.25,
        ge=LEAST_CONFIDENCE,
        le=1,
        description="Least score of a detection. Changing it runs no model.",
    )
    iou: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Of two detections of a class whose masks overlap by more than this (intersection over union) "
        "the better one stands. Changing it runs no model.",
    )

    @model_validator(mode="after")
    def _fits_its_type(self) -> DetectorLabeling:
        if (self.mask_model is not None) != (self.type == "open-vocabulary"):
            raise ValueError(_MASK_MODEL)
        if self.type == "yolo" and self.sha256 is None:
            raise ValueError(_PIN)
        return self


class Labeling(Model):
    """How the images are labeled: by attention, by a detector, or by both, each checking the other."""

    model_config = ConfigDict(
        json_schema_extra=validations(cel("has(self.attention) || has(self.detector)", _ONE_LABELLER))
    )

    attention: AttentionLabeling | None = Field(default=None)
    detector: DetectorLabeling | None = Field(default=None)
    agreement: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="With both labelers: least overlap (intersection over union) of their masks of one class at "
        "which an object stands, with the detector's mask. What only one of them saw is kept in the label file, "
        "with the reason, and not published.",
    )

    @model_validator(mode="after")
    def _has_a_labeler(self) -> Labeling:
        if self.attention is None and self.detector is None:
            raise ValueError(_ONE_LABELLER)
        return self
