"""`img2img`: draw another stage's images again, with variables changed."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from diffugen_api.v1alpha1.base import cel, validations
from diffugen_api.v1alpha1.kinds.base import DrawingFromImages
from diffugen_api.v1alpha1.prompts import VariableName


class Img2Img(DrawingFromImages):
    """Draw every image of another stage again, with some of its variables changed."""

    kind: ClassVar[str] = "img2img"
    summary: ClassVar[str] = "Draw another stage's images again, with variables changed."
    not_in_address: ClassVar[frozenset[str]] = DrawingFromImages.not_in_address | {"variables"}

    variables: dict[
        VariableName,
        Annotated[
            list[Annotated[str, StringConstraints(min_length=1, max_length=500)]], Field(min_length=1, max_length=2000)
        ],
    ] = Field(
        min_length=1,
        max_length=32,
        json_schema_extra=validations(
            cel(
                "self.all(name, name.matches('^[A-Za-z_][A-Za-z0-9_]*$'))",
                "a variable's name is letters, digits and _, and does not begin with a digit: rename it",
            )
        ),
        description="The variables to change, with their new values. Each combination of the values fills the "
        "template of the source's image again. Other variables keep their values. The source's own combination is "
        "skipped.",
    )
