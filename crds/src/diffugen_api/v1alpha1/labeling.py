"""`labeling`: how objects are found in the images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from diffugen_api.v1alpha1.base import Model, ModelUri, Word, cel, validations

LEAST_CONFIDENCE = 0.05
"""Detections with a lower score are not stored as evidence, so no setting can be lower."""

_POSTHOC_ONLY = "rescale and headWeights: agreement go with capture: posthoc: remove them, or set posthoc"
_CALIBRATED = "rescale and headWeights: agreement do not go with calibration, which chooses heads itself: remove them"
_POSTHOC_CALIBRATION = "calibration.backgroundToken goes with capture: posthoc: remove it, or set posthoc"
_ONE_LABELER = "labeling names no labeler: give attention: {}, or a detector, or both"
_MASK_MODEL = "maskModel goes with type open-vocabulary, which needs it to turn boxes into masks: add or remove it"
_PIN = "a .pt file runs code when it is loaded: pin it by sha256, or use another type of detector"


class Calibration(Model):
    """Annotated images, one or a few of each class: from them is chosen which attention is read, and where it ends."""

    images: str = Field(
        min_length=1,
        max_length=512,
        description="The folder of 1 to 64 images: s3://BUCKET/PREFIX, or a path. A text file of the same name is an "
        "image's caption.",
    )
    masks: str = Field(
        min_length=1,
        max_length=512,
        description="The folder with a folder for each class, named as the class. In it is a mask for each image that "
        "shows the class: of the image's name, white where the object is.",
    )
    background_token: bool = Field(
        default=False,
        description="Also train a token that takes the attention of cells without an object. It is used only if it "
        "helps on images that it was not trained on, so it takes two images or more. Only with capture: posthoc.",
    )


class AttentionLabeling(Model):
    """Labels from the diffusion model's own cross-attention, without any detector.

    `posthoc` noises the finished image a little and reads the attention of one more UNet pass over it. `inline`
    sums attention over all sampling steps, as DAAM does.
    """

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel(
                "!has(self.capture) || self.capture == 'posthoc' || "
                "!(has(self.rescale) && self.rescale || has(self.headWeights) && self.headWeights == 'agreement')",
                _POSTHOC_ONLY,
            ),
            cel(
                "!has(self.calibration) || "
                "!(has(self.rescale) && self.rescale || has(self.headWeights) && self.headWeights == 'agreement')",
                _CALIBRATED,
            ),
            cel(
                "!has(self.capture) || self.capture == 'posthoc' || !has(self.calibration) || "
                "!has(self.calibration.backgroundToken) || !self.calibration.backgroundToken",
                _POSTHOC_CALIBRATION,
            ),
        )
    )

    capture: Literal["posthoc", "inline"] = Field(
        default="posthoc",
        description="When attention is read. posthoc: in one extra UNet pass over the finished image. inline: summed "
        "over all sampling steps; an image that exists already is drawn again for it.",
    )
    refine: bool = Field(
        default=True,
        description="Spread the maps along the model's self-attention, so that they cover whole objects.",
    )
    threshold: Annotated[float, Field(ge=0.05, le=0.95)] | Literal["auto"] = Field(
        default=0.4,
        description="A pixel belongs to the object if the map is above this fraction of its range: 0.05 to 0.95. auto "
        "chooses, for each object, the threshold whose outline fits the edges of the image best.",
    )
    ignore_band: float = Field(
        default=0,
        ge=0,
        le=0.5,
        description="Pixels outside every object whose map is less than this below the threshold are published as "
        "ignored; 0 ignores none.",
    )
    min_presence: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Label a class only if its words reduce the model's prediction error by this fraction; 0.05 suits "
        "builtin://shapes. It costs two UNet passes for each image, and two for each class that the prompt names. "
        "Not checked where absent.",
    )
    snap: bool = Field(
        default=True, description="Move uncertain borders of objects to where the colors of the image change."
    )
    fragment_fraction: float = Field(
        default=0,
        ge=0,
        le=0.5,
        description="A part of a class that touches an object of another class, and is smaller than this fraction of "
        "the class's largest part, goes to that object if a quarter of its border touches it, else to the background; "
        "0 keeps it.",
    )
    background: list[Word] = Field(
        default_factory=list,
        max_length=32,
        description="Words for the background. If the prompt names one, its map competes with the objects for "
        "uncertain pixels.",
    )
    rescale: bool = Field(
        default=False,
        description="Divide each word's map, cell by cell, by the attention to all words of the prompt (GoCA). Only "
        "with capture: posthoc.",
    )
    head_weights: Literal["equal", "agreement"] = Field(
        default="equal",
        description="How the heads of a layer are joined. agreement: at each cell by how much a head's output agrees "
        "with that of all heads (GoCA). Only with capture: posthoc.",
    )
    calibration: Calibration | None = Field(
        default=None,
        description="Choose heads, layers, sampling steps and border on annotated images. `threshold` 0.4 then means "
        "the chosen border.",
    )

    @model_validator(mode="after")
    def _reads_one_pass(self) -> AttentionLabeling:
        if self.capture == "inline" and (self.rescale or self.head_weights == "agreement"):
            raise ValueError(_POSTHOC_ONLY)
        if self.calibration is not None and (self.rescale or self.head_weights == "agreement"):
            raise ValueError(_CALIBRATED)
        if self.capture == "inline" and self.calibration is not None and self.calibration.background_token:
            raise ValueError(_POSTHOC_CALIBRATION)
        return self


class DetectorLabeling(Model):
    """Labels from a model that was trained to find objects. Its classes are matched by name, never by number."""

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
    model: ModelUri = Field(
        description="builtin://shapes-segmenter, or a folder with safetensors weights: hf://ORG/NAME@REVISION, "
        "s3://BUCKET/FOLDER, oci://REGISTRY/REPOSITORY@sha256:DIGEST#/FOLDER, or a path; for yolo a .pt file: a path, "
        "s3://BUCKET/FILE, oci://REGISTRY/REPOSITORY@sha256:DIGEST#/FILE, or hf://ORG/NAME@REVISION/FILE.",
    )
    sha256: str | None = Field(
        default=None,
        max_length=64,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the .pt file; a file with another one is refused. Required for yolo.",
    )
    mask_model: ModelUri | None = Field(
        default=None,
        description="open-vocabulary: the SAM 2 model that turns boxes into masks, in the forms of `model`.",
    )
    confidence: float = Field(
        default=0.25,
        ge=LEAST_CONFIDENCE,
        le=1,
        description="Lowest score of a detection that counts. A change runs no model.",
    )
    iou: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="If the masks of two detections of a class overlap by more than this (intersection over union), "
        "only the one with the higher score is kept. A change runs no model.",
    )

    @model_validator(mode="after")
    def _fits_its_type(self) -> DetectorLabeling:
        if (self.mask_model is not None) != (self.type == "open-vocabulary"):
            raise ValueError(_MASK_MODEL)
        if self.type == "yolo" and self.sha256 is None:
            raise ValueError(_PIN)
        return self


class Labeling(Model):
    """How the images are labeled: by attention, by a detector, or by both, which must then agree."""

    model_config = ConfigDict(
        json_schema_extra=validations(cel("has(self.attention) || has(self.detector)", _ONE_LABELER))
    )

    attention: AttentionLabeling | None = Field(default=None)
    detector: DetectorLabeling | None = Field(default=None)
    agreement: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="With both labelers: an object is published if their masks of it overlap at least this much "
        "(intersection over union), with the detector's mask. An object that only one of them found stays in the label "
        "file, with the reason, and is not published.",
    )

    @model_validator(mode="after")
    def _has_a_labeler(self) -> Labeling:
        if self.attention is None and self.detector is None:
            raise ValueError(_ONE_LABELER)
        return self
