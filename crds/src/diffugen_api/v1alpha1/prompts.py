"""`classes`, `image` and `prompts`: what to label and what to draw."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from diffugen_api.v1alpha1.base import Model, Word, cel, validations

ClassName = Annotated[
    str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9 _-]*[A-Za-z0-9])?$")
]
VariableName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class ObjectClass(Model):
    """A class of objects to label. The order of the classes gives their ids in every export, from 0."""

    name: ClassName = Field(description="The class's name in every export, and a word for it in prompts.")
    synonyms: list[Word] = Field(
        default_factory=list,
        max_length=16,
        description="Further words that mean this class; a prompt names the class by any of them.",
    )
    detector_class: Word | None = Field(
        default=None,
        description="What the detector calls this class; its name where absent. Of several classes with one "
        "detectorClass, a detection is of the one that the prompt names.",
    )

    @property
    def words(self) -> tuple[str, ...]:
        """The words that name this class, its name first."""
        return (self.name, *self.synonyms)

    @property
    def detected_as(self) -> str:
        """What the detector calls this class."""
        return self.detector_class or self.name


class Image(Model):
    """The images: size in pixels and file format."""

    width: int = Field(default=512, ge=64, le=2048, multiple_of=8, description="Width in pixels, a multiple of 8.")
    height: int = Field(default=512, ge=64, le=2048, multiple_of=8, description="Height in pixels, a multiple of 8.")
    format: Literal["png", "jpeg", "webp"] = Field(
        default="png", description="File format; jpeg and webp are written at quality 95."
    )


class Prompts(Model):
    """What to draw: every template filled with combinations of the variables that it names."""

    templates: list[Annotated[str, StringConstraints(min_length=1, max_length=2000)]] = Field(
        min_length=1,
        max_length=256,
        description="Prompts with {name} for each variable; {{ and }} are the braces themselves.",
    )
    variables: dict[
        VariableName,
        Annotated[
            list[Annotated[str, StringConstraints(min_length=1, max_length=500)]],
            Field(min_length=1, max_length=1000),
        ],
    ] = Field(
        default_factory=dict,
        max_length=32,
        json_schema_extra=validations(
            cel(
                "self.all(name, name.matches('^[A-Za-z_][A-Za-z0-9_]*$'))",
                "a variable's name is letters, digits and _, and does not begin with a digit: rename it",
            )
        ),
        description=(
            "Values for each field of the templates; `combine` says how those of a template's own fields go "
            "together. The values of `object` must be classes or synonyms of one."
        ),
    )
    combine: Literal["product", "zip"] = Field(
        default="product",
        description="product: every value with every other. zip: the first values together, then the second, and so "
        "on; a template's own variables then need equally many.",
    )
    sample: int | None = Field(
        default=None,
        ge=1,
        le=5_000_000,
        description="Draw only this many combinations of each template, chosen by `spec.seed`; all where absent.",
    )
    negative: str = Field(default="", max_length=4000, description="What the images should not show.")
    syntax: Literal["auto", "compel", "a1111", "none"] = Field(
        default="auto",
        description="How weights are written, in the negative prompt too: compel `ball++ (a ball)1.3`, a1111 "
        "`(ball:1.3) ((ball)) [ball]`; auto tells by the marks; none reads every sign as text.",
    )
    samples_per_prompt: int = Field(
        default=1, ge=1, le=1_000_000, description="Images for each prompt, each with a seed of its own."
    )
