"""`output`: where the dataset goes, in which formats and parts."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import ConfigDict, Field, field_validator, model_validator

from diffugen_api.v1alpha1.base import Model, cel, validations

Format = Literal["coco", "yolo", "voc", "masks", "huggingface", "webdataset", "imagefolder"]
MOST_CLASSES_OF_VOC = 254
"""VOC's masks have 256 values: 0 is background, and 255 is to be ignored."""


AddressingStyle = Literal["auto", "path", "virtual"]


class SecretRef(Model):
    """A Secret in the dataset's own namespace."""

    name: str = Field(
        min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", description="The name of the Secret."
    )


_NO_DOTS = "a folder cannot be named . or ..: write the prefix without it"


class S3(Model):
    """An S3 bucket: MinIO or any other store with the S3 API."""

    endpoint: str = Field(
        max_length=512,
        pattern=r"^https?://([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?/?$",
        description="Scheme, host and port, e.g. http://minio.storage:9000.",
    )
    bucket: str = Field(
        min_length=3,
        max_length=63,
        pattern=r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$",
        description="The name of the bucket.",
    )
    prefix: str = Field(
        default="",
        max_length=512,
        pattern=r"^[A-Za-z0-9._/-]*$",
        json_schema_extra=validations(cel("!self.matches('(^|/)[.][.]?(/|$)')", _NO_DOTS)),
        description="Folder in the bucket.",
    )
    region: str = Field(default="us-east-1", max_length=63, description="The region of the bucket.")
    addressing_style: AddressingStyle = Field(
        default="auto",
        description="How requests name the bucket. path: ENDPOINT/BUCKET. virtual: BUCKET.ENDPOINT, which some clouds "
        "require. auto: virtual for AWS and Alibaba Cloud, path for other stores.",
    )
    secret_ref: SecretRef | None = Field(
        default=None,
        description="A Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    )

    @field_validator("prefix")
    @classmethod
    def _has_no_dots(cls, prefix: str) -> str:
        if {".", ".."} & set(prefix.split("/")):
            raise ValueError(_NO_DOTS)
        return prefix


class Splits(Model):
    """Parts of the dataset as fractions that add up to 1. Images that come from one image are in one split."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel(
                "[(has(self.train) ? double(self.train) : 0.0) + (has(self.val) ? double(self.val) : 0.0) + "
                "(has(self.test) ? double(self.test) : 0.0)].all(sum, sum > 0.999999 && sum < 1.000001)",
                "splits must add up to 1: for example train 0.8, val 0.1, test 0.1",
            )
        )
    )

    train: float = Field(default=0, ge=0, le=1, description="The fraction of images for training.")
    val: float = Field(default=0, ge=0, le=1, description="The fraction of images for validation.")
    test: float = Field(default=0, ge=0, le=1, description="The fraction of images for the final test.")

    @model_validator(mode="after")
    def _add_up_to_one(self) -> Splits:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError("splits must add up to 1: for example train 0.8, val 0.1, test 0.1")
        return self


class CocoOutput(Model):
    """Options of the format coco."""

    segmentation: Literal["auto", "polygon", "rle"] = Field(
        default="auto",
        description="How masks are written. auto: polygons for the masks that all readers get back from polygons, RLE "
        "for the others. polygon: always polygons. rle: always RLE, which loses nothing.",
    )


class YoloOutput(Model):
    """Options of the format yolo."""

    task: Literal["segment", "detect"] = Field(
        default="segment", description="What the label files have. segment: a polygon an object. detect: a box."
    )


def _needs_format(name: str) -> dict[str, str]:
    return cel(
        f"!has(self.{name}) || !has(self.formats) || self.formats.exists(format, format == '{name}')",
        _no_format(name),
    )


def _no_format(name: str) -> str:
    return f"{name} has options, but formats does not name {name}: add {name} to formats, or remove the options"


class Output(Model):
    """Where the dataset goes, and in which formats."""

    model_config = ConfigDict(json_schema_extra=validations(_needs_format("coco"), _needs_format("yolo")))

    s3: S3 | None = Field(default=None, description="The object store; `diffugen run --store` replaces it.")
    formats: list[Format] = Field(
        default_factory=lambda: list[Format](("coco", "yolo")),
        min_length=1,
        max_length=len(get_args(Format)),
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="coco: instances with polygons or RLE masks. yolo: Ultralytics, polygons or boxes. "
        "voc: Pascal VOC, XML and PNG masks. masks: PNGs of classes and of objects. huggingface: Parquet. "
        "webdataset: tar files. imagefolder: a folder for each class.",
    )
    coco: CocoOutput | None = Field(default=None, description="Options of the format coco.")
    yolo: YoloOutput | None = Field(default=None, description="Options of the format yolo.")
    splits: Splits = Field(default_factory=lambda: Splits(train=0.8, val=0.1, test=0.1))

    @model_validator(mode="after")
    def _options_have_their_format(self) -> Output:
        for name in ("coco", "yolo"):
            if getattr(self, name) is not None and name not in self.formats:
                raise ValueError(_no_format(name))
        return self
