"""What all kinds of stages that draw share: a model, how it samples, and what the rest of the code asks of a kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, StringConstraints, field_validator

from diffugen_api.v1alpha1.base import Model, ModelUri, cel, validations
from diffugen_api.v1alpha1.models import MODEL, Embedding, Lora

StageName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=30, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
]
"""A stage's name: a DNS label, short enough for the names of Jobs and pods."""

Scheduler = Literal[
    "ddim", "ddpm", "deis", "dpmsolver++", "dpmsolver++_karras", "dpmsolver++_sde", "euler", "euler_a", "heun", "lcm",
    "lms", "pndm", "unipc",
]  # fmt: skip

GUIDANCE_SCALE: Final = 3.0
"""The default guidance scale: the best one for training data as `benchmarks/guidance.py` measures it."""


class Drawing(Model):
    """Base of the kinds that draw.

    A subclass is one kind: its fields are the manifest's, its class variables hold what other code needs to know about
    the kind, so that no code asks which kind a stage is.
    """

    kind: ClassVar[str]
    """The kind's name: the field of `Stage` that holds it."""
    summary: ClassVar[str]
    """What a stage of this kind does, as the description of that field."""
    inpaints: ClassVar[bool] = False
    """Whether it replaces labeled objects under a mask; only such a kind can use a model made for inpainting."""
    not_in_address: ClassVar[frozenset[str]] = frozenset({"model", "model_sha256", "embeddings", "loras"})
    """Fields that a sample's address covers by what follows from them: the model's digest, the prompt, the source."""
    added_later: ClassVar[Mapping[str, Any]] = {"loras": []}
    """Fields that came after the kind's first release, by their names in manifests, with their defaults.

    A default stays out of addresses, so that older specs keep theirs.
    """
    spec_rules: ClassVar[tuple[dict[str, str], ...]] = ()
    """CEL rules of the kind over the whole spec."""

    model: ModelUri | None = Field(default=None, description=f"{MODEL}; that of the source where absent.")
    model_sha256: str | None = Field(
        default=None,
        alias="modelSHA256",
        max_length=64,
        pattern=r"^[0-9a-f]{64}$",
        description="The digest that the model must have, as the plan reports it; of a checkpoint in a single file, "
        "its SHA-256. Pickled weights are loaded only from a model whose digest is given here.",
    )
    embeddings: list[Embedding] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra=validations(
            cel(
                "self.all(x, !has(x.token) || "
                "self.exists_one(y, has(y.token) && y.token.lowerAscii() == x.token.lowerAscii()))",
                "tokens of embeddings must be unique: rename or remove the duplicates",
            )
        ),
        description="Textual inversion embeddings. A stage without a model of its own also has those of its source.",
    )
    loras: list[Lora] = Field(
        default_factory=list,
        max_length=8,
        description="LoRAs of the model, its text encoders included. A stage without a model of its own also has those "
        "of its source.",
    )
    steps: int = Field(
        default=25, ge=1, le=1000, description="Sampling steps. With a strength below 1, only that part of them runs."
    )
    scheduler: Scheduler | None = Field(
        default=None,
        description="The sampler, with the model's own noise schedule and step spacing; the model's own where absent.",
    )
    guidance_scale: float = Field(
        default=GUIDANCE_SCALE,
        ge=1,
        le=50,
        description="Scale of classifier-free guidance; 1 switches it off. 2 to 3 makes the best training data.",
    )

    @property
    def source_stage(self) -> str | None:
        """The name of the stage whose images this one draws from; None for a kind that needs none."""
        return None

    def content(self) -> dict[str, Any]:
        """Return the part of the revision that this stage decides."""
        return self._without_later_defaults(self.model_dump(mode="json", by_alias=True))

    def settings(self) -> dict[str, Any]:
        """Return the part of its samples' addresses that this stage decides."""
        return self._without_later_defaults(
            self.model_dump(mode="json", by_alias=True, exclude=set(self.not_in_address))
        )

    def class_faults(self, classes: Sequence[str]) -> Iterator[str]:
        """Yield what is wrong if the dataset has `classes`; each fault begins with its field below the kind's own."""
        yield from ()

    def _without_later_defaults(self, data: Mapping[str, Any]) -> dict[str, Any]:
        later = self.added_later
        return {field: value for field, value in data.items() if field not in later or value != later[field]}

    @field_validator("embeddings")
    @classmethod
    def _tokens_are_unique(cls, embeddings: list[Embedding]) -> list[Embedding]:
        tokens = [each.token.lower() for each in embeddings]
        for number, token in enumerate(tokens):
            if token and token in tokens[:number]:
                raise ValueError(
                    f"[{number}].token: {embeddings[number].token!r} is already the token of another embedding (case "
                    "does not matter): rename or remove one"
                )
        return embeddings


class DrawingFromImages(Drawing):
    """Base of the kinds that draw from another stage's images."""

    not_in_address: ClassVar[frozenset[str]] = Drawing.not_in_address | {"source"}

    source: StageName = Field(alias="from", description="The stage whose images this stage draws from.")
    strength: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="How far an image may differ from its source: the part of the sampling steps that runs, at least "
        "one step.",
    )

    @property
    def source_stage(self) -> str | None:
        """The name of the stage whose images this one draws from."""
        return self.source
