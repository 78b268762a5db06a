"""`textualInversion`: teach a model a new word from a few images. It draws no images of the dataset."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, field_validator

from diffugen_api.v1alpha1.base import Model, ModelUri
from diffugen_api.v1alpha1.models import MODEL, WORD

_TEMPLATE = Annotated[str, StringConstraints(min_length=2, max_length=500, pattern=r"^[^{}]*(\{\}[^{}]*)+$")]


class TextualInversion(Model):
    """Teach a model a new word from a few images (textual inversion); stages that draw use it by this stage's name."""

    kind: ClassVar[str] = "textualInversion"
    """The kind's name: the field of `Stage` that holds it."""
    summary: ClassVar[str] = "Teach a model a new word from a few images; embeddings of other stages name this one."

    model: ModelUri = Field(description=f"{MODEL}.")
    model_sha256: str | None = Field(
        default=None,
        alias="modelSHA256",
        max_length=64,
        pattern=r"^[0-9a-f]{64}$",
        description="The digest that the model must have, as the plan reports it; of a checkpoint in a single file, "
        "its SHA-256.",
    )
    images: str = Field(
        min_length=1,
        max_length=512,
        description="The folder of 3 to 30 images to learn from: s3://BUCKET/PREFIX, or a path.",
    )
    masks: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="The folder of a mask for each image, of the same name and white where the object is: only there "
        "the loss counts.",
    )
    token: str = Field(
        max_length=64,
        pattern=WORD,
        description="The new word for prompts, such as <piano>; case does not matter. It may be a synonym of a class.",
    )
    initializer: str = Field(
        min_length=1, max_length=200, description="A word of the model that comes near: the vectors start as its own."
    )
    vectors: int = Field(default=1, ge=1, le=32, description="Vectors, and so tokens of a prompt, that the word takes.")
    learn: Literal["object", "style"] = Field(
        default="object", description="What the images have in common; it decides the sentences of the training."
    )
    templates: list[_TEMPLATE] = Field(
        default_factory=list,
        max_length=64,
        description="Sentences with {} for the word, in place of the built-in ones of `learn`.",
    )
    steps: int = Field(default=2000, ge=1, le=1_000_000, description="Updates of the vectors, at most.")
    learning_rate: float = Field(default=0.005, gt=0, le=1, description="Learning rate of Adam.")
    batch_size: int = Field(default=4, ge=1, le=256, description="Images of one pass.")
    accumulate: int = Field(default=1, ge=1, le=256, description="Passes of one update.")
    seed: int = Field(default=0, ge=0, le=2**53 - 1, description="All that is random in the training derives from it.")
    flip: bool = Field(default=False, description="Mirror images at random.")
    patience: int = Field(
        default=8,
        ge=0,
        le=1000,
        description="Evaluations without improvement after which training stops; 0 never stops early.",
    )

    def content(self) -> dict[str, Any]:
        """Return the part of the revision that this stage decides."""
        data: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        return data

    @field_validator("initializer")
    @classmethod
    def _is_a_word(cls, initializer: str) -> str:
        if not initializer.strip():
            raise ValueError("it is blank: write a word that comes near")
        return initializer
