"""`inpaint`: replace the labeled objects of a class in another stage's images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from diffugen_api.errors import listed
from diffugen_api.v1alpha1.base import ModelUri, cel
from diffugen_api.v1alpha1.kinds.base import DrawingFromImages
from diffugen_api.v1alpha1.models import MODEL
from diffugen_api.v1alpha1.prompts import ClassName

Replacement = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^\S(.*\S)?$")]


class Inpaint(DrawingFromImages):
    """Replace the labeled objects of a class in another stage's images; the rest of the image stays as it is."""

    kind: ClassVar[str] = "inpaint"
    summary: ClassVar[str] = "Replace labeled objects in another stage's images."
    inpaints: ClassVar[bool] = True
    not_in_address: ClassVar[frozenset[str]] = DrawingFromImages.not_in_address | {"replacements", "template"}
    spec_rules: ClassVar[tuple[dict[str, str], ...]] = (
        cel(
            "[self.classes.map(c, c.name)].all(names, self.stages.all(s, !has(s.inpaint) || "
            "s.inpaint.replacements.all(name, name in names)))",
            "the keys of inpaint.replacements must be classes: use the names of spec.classes",
        ),
    )

    replacements: dict[ClassName, Annotated[list[Replacement], Field(min_length=1, max_length=64)]] = Field(
        min_length=1,
        max_length=32,
        description="For a class, what to draw in place of its objects: one image for each text and each source "
        "whose prompt names the class. An object drawn from a text that names no other class keeps the class of the "
        "object that it replaces.",
    )
    template: str | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        description="Prompt of the new image: {object} is the replacement, other fields are the source's variables. "
        "It must name every other class that the source's prompt names. Where absent: the source's prompt, with the "
        "words for the class replaced.",
    )
    instances: Literal["all", "largest"] = Field(
        default="all", description="Which labeled objects of the class are replaced."
    )
    dilation: float = Field(
        default=0.05,
        ge=0,
        le=0.5,
        description="How far the mask extends beyond the label, as a fraction of the image's shorter side.",
    )
    strength: float = Field(
        default=1,
        gt=0,
        le=1,
        description="How far the new object may differ from the old one: the part of the sampling steps that runs, at "
        "least one step.",
    )
    model: ModelUri | None = Field(
        default=None, description=f"{MODEL}, made for inpainting or not; that of the source where absent."
    )

    def class_faults(self, classes: Sequence[str]) -> Iterator[str]:
        """Yield each class of `replacements` that the dataset does not have."""
        known = frozenset(classes)
        for name in self.replacements:
            if name not in known:
                yield (
                    f"replacements: {name!r} is not a class: use one of {listed(classes)}, or add it to spec.classes"
                )
