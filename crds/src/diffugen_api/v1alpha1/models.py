"""What a stage loads: the URI of a model, textual inversion embeddings, and LoRAs."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from diffugen_api.v1alpha1.base import Model, ModelUri, cel, validations

MODEL = (
    "A Stable Diffusion pipeline (1.x, 2.x, XL): builtin://NAME, hf://ORG/NAME@REVISION, s3://BUCKET/FOLDER, "
    "oci://REGISTRY/REPOSITORY@sha256:DIGEST#/FOLDER in an image, or a path; or a checkpoint in a single file: "
    "hf://ORG/NAME/FILE.safetensors@REVISION, s3://BUCKET/FILE.safetensors, oci://IMAGE#/FILE.safetensors, or a path"
)
WORD = r"^[^\s()\[\]{}\\\",:+]*[^\s()\[\]{}\\\",:+-]$"
"""What an embedding may be called: no blanks, and none of the signs of prompt weights."""


_ONE_PLACE = "an embedding is either of a uri, with a token, or from a stage of kind textualInversion: give one of them"


class Embedding(Model):
    """A word that was taught to a text encoder by textual inversion: in a file, or by a stage of this dataset."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel("has(self.from) ? !has(self.uri) : has(self.uri) && has(self.token)", _ONE_PLACE)
        )
    )

    uri: ModelUri = Field(
        default="",
        description="The file, in the form of diffusers or A1111, as safetensors or .pt: a path, s3://BUCKET/FILE, "
        "oci://REGISTRY/REPOSITORY@sha256:DIGEST#/FILE, or hf://ORG/NAME@REVISION/FILE (learned_embeds.safetensors "
        "where no file is named).",
    )
    source: str | None = Field(
        default=None,
        alias="from",
        min_length=1,
        max_length=30,
        description="The stage of kind textualInversion that trains it.",
    )
    token: str = Field(
        default="",
        max_length=64,
        pattern=WORD,
        description="The word that stands for it in prompts, such as <piano>; case does not matter. "
        "It may be a synonym of a class. That of the stage where it is from one.",
    )

    @model_validator(mode="after")
    def _is_of_one_place(self) -> Embedding:
        if (self.source is not None) == bool(self.uri) or (self.source is None and not self.token):
            raise ValueError(_ONE_PLACE)
        return self

    @model_serializer(mode="wrap")
    def _without_absent_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # an embedding of a file has the same data, and so the same addresses, as before there were stages that train
        data: dict[str, Any] = handler(self)
        return {field: value for field, value in data.items() if value}


class Lora(Model):
    """A low-rank adaptation of a model (LoRA, Hu et al. 2021), and how strongly it counts."""

    uri: ModelUri = Field(
        description="The safetensors file, in the layout of diffusers, kohya or PEFT: a path, s3://BUCKET/FILE, "
        "oci://REGISTRY/REPOSITORY@sha256:DIGEST#/FILE, or hf://ORG/NAME@REVISION/FILE "
        "(pytorch_lora_weights.safetensors where no file is named).",
    )
    weight: float = Field(
        default=1, ge=-10, le=10, description="How strongly it counts: 1 as it was trained, 0 not at all."
    )
