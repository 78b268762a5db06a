"""`classes`, `image` and `prompts`: what to label and what to draw."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from diffugen_api.v1alpha1.base import Model, Word, cel, validations

NAME_PATTERN = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"
ClassName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=NAME_PATTERN)]
VariableName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class ObjectClass(Model):
    """A class of objects to label. The order of the classes gives their ids in every export, from 0."""

    name: ClassName = Field(
        description="The name of the class in every export, and a word for it in prompts; in any script."
    )
    synonyms: list[Word] = Field(
        default_factory=list,
        max_length=16,
        description="Other words for this class; a prompt can name the class by any of them.",
    )
    detector_class: Word | None = Field(
        default=None,
        description="The detector's name for this class; the class's own name where absent. If classes share a "
        "detectorClass, a detection counts for the one that the prompt names.",
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


FILE_PATTERN = r"^(s3://|hf://|/|~).+\.(txt|jsonl|csv)(\.gz)?$"


class Prompts(Model):
    """What to draw: each template, filled with combinations of the values of its variables, and the rows of a file."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel(
                "has(self.file) || (has(self.templates) && size(self.templates) > 0)",
                "there is nothing to draw: give templates, a file, or both",
            ),
            cel("has(self.file) || !has(self.fileSHA256)", "fileSHA256 is of a file: give file, or remove it"),
        )
    )

    templates: list[Annotated[str, StringConstraints(min_length=1, max_length=2000)]] = Field(
        default_factory=list,
        max_length=256,
        description="Prompts, with {name} where the value of a variable goes; write {{ and }} for braces. Needed where "
        "there is no `file`.",
    )
    file: str | None = Field(
        default=None,
        max_length=1024,
        pattern=FILE_PATTERN,
        description="A file of up to a million rows, beside or in place of templates: s3://BUCKET/FILE at the endpoint "
        "of `spec.output.s3`, hf://ORG/NAME@REVISION/FILE, or an absolute path in the plan's pod; .txt, .jsonl or "
        ".csv, each also with .gz. A row is a prompt, or values of the variables of templates. The plan keeps a copy "
        "for the steps after it.",
    )
    file_sha256: str | None = Field(
        default=None,
        alias="fileSHA256",
        max_length=64,
        pattern=r"^[0-9a-f]{64}$",
        description="The SHA-256 that the file must have. Write that of the new content after a change of the file: a "
        "file that changes under its name starts no new run.",
    )
    variables: dict[
        VariableName,
        Annotated[
            list[Annotated[str, StringConstraints(min_length=1, max_length=500)]],
            Field(min_length=1, max_length=2000),
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
            "The values of each variable of the templates; `combine` defines how the values of several variables "
            "are combined. The values of `object` must be names or synonyms of classes."
        ),
    )
    combine: Literal["product", "zip"] = Field(
        default="product",
        description="product: all combinations. zip: the first values of all variables, then the second ones, and so "
        "on; the variables of a template must then have equally many values.",
    )
    sample: int | None = Field(
        default=None,
        ge=1,
        le=5_000_000,
        description="Number of combinations to draw of each template, and of rows of the file, chosen by `spec.seed`; "
        "all where absent.",
    )
    negative: str = Field(
        default="", max_length=4000, description="The negative prompt: what the images should not show."
    )
    syntax: Literal["auto", "compel", "a1111", "none"] = Field(
        default="auto",
        description="The syntax of weights in all prompts. compel: `ball++ (a ball)1.3`. a1111: `(ball:1.3) ((ball)) "
        "[ball]`. auto: detected for each prompt. none: no weights, every character is text.",
    )
    max_bytes: int = Field(
        default=16_384,
        ge=1,
        le=1_048_576,
        description="The longest prompt, with its values in it, in bytes of UTF-8; a longer one is an error. The bound "
        "changes no image.",
    )
    samples_per_prompt: int = Field(
        default=1, ge=1, le=1_000_000, description="Number of images for each prompt, each with its own seed."
    )

    @model_validator(mode="after")
    def _something_to_draw(self) -> Prompts:
        if not self.templates and self.file is None:
            raise ValueError("there is nothing to draw: give templates, a file, or both")
        if self.file is None and self.file_sha256 is not None:
            raise ValueError("fileSHA256 is of a file: give file, or remove it")
        return self
