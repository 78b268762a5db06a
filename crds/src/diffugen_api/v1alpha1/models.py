"""What every stage that draws has: a model, and words that it was taught."""

from __future__ import annotations

from pydantic import Field, field_validator

from diffugen_api.v1alpha1.base import Model, cel, validations

MODEL = (
    "A Stable Diffusion pipeline (1.x, 2.x, XL): builtin://NAME, hf://ORG/NAME@REVISION, s3://BUCKET/FOLDER, or a path"
)
_WORD = r"^[^\s()\[\]{}\\\",:+]*[^\s()\[\]{}\\\",:+-]$"


class Embedding(Model):
    """A word that was taught to a text encoder by textual inversion."""

    uri: str = Field(
        min_length=1,
        max_length=512,
        description="Its file, as diffusers or A1111 write it, safetensors or .pt: a path, s3://BUCKET/FILE, or "
        "hf://ORG/NAME@REVISION/FILE (learned_embeds.safetensors where no file is named).",
    )
    token: str = Field(
        max_length=64,
        pattern=_WORD,
        description="The word that stands for it in prompts, such as <piano>; case does not matter. "
        "It may be a synonym of a class.",
    )


class Drawing(Model):
    """What all stages that draw have in common."""

    model_sha256: str | None = Field(
        default=None,
        alias="modelSHA256",
        max_length=64,
        pattern=r"^[0-9a-f]{64}$",
        description="The digest that the model has to have, as the plan states it; only a model whose digest is given "
        "here may have pickled weights.",
    )
    embeddings: list[Embedding] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra=validations(
            cel(
                "self.all(x, self.exists_one(y, y.token.lowerAscii() == x.token.lowerAscii()))",
                "tokens of embeddings must be unique: rename or remove the duplicates",
            )
        ),
        description="Words taught by textual inversion; a stage without a model of its own has its source's, too.",
    )

    @field_validator("embeddings")
    @classmethod
    def _tokens_are_unique(cls, embeddings: list[Embedding]) -> list[Embedding]:
        tokens = [each.token.lower() for each in embeddings]
        for number, token in enumerate(tokens):
            if token in tokens[:number]:
                raise ValueError(
                    f"[{number}].token: {embeddings[number].token!r} stands for another embedding already (case does "
                    "not matter): rename or remove one"
                )
        return embeddings
