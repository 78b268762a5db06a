"""What all models of the API share: their base, and how a model carries CEL rules into the CRD."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from diffugen_api.model_images import OCI, PATTERN, read_model_image

WORD_PATTERN = r"^\S(.*\S)?$"
Word = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=WORD_PATTERN)]


def cel(rule: str, message: str) -> dict[str, str]:
    """Return one x-kubernetes-validations entry: a CEL rule over `self`, and the message if it fails."""
    return {"rule": rule, "message": message}


def validations(*rules: dict[str, str]) -> dict[str, Any]:
    """Return the schema extra that carries CEL rules."""
    return {"x-kubernetes-validations": list(rules)}


def unique_names(what: str) -> dict[str, str]:
    """Return the rule that no two entries of a list have one name."""
    return cel(
        "self.all(x, self.exists_one(y, y.name == x.name))",
        f"{what} names must be unique: rename or remove the duplicates",
    )


def _a_whole_image(uri: str) -> str:
    if uri.startswith(OCI):
        read_model_image(uri)
    return uri


ModelUri = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        json_schema_extra=validations(
            cel(
                f"!self.startsWith('{OCI}') || self.matches('{PATTERN}')",
                f"the model in an image is {OCI}REGISTRY/REPOSITORY@sha256:DIGEST, and #/PATH where it is not at the "
                "root of the image: give the digest",
            )
        ),
    ),
    AfterValidator(_a_whole_image),
]
"""The address of a model, or of a file that goes with one."""


class Model(BaseModel):
    """Base of the API's models: camelCase outside, unknown fields refused, types as the CRD has them, values frozen."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, strict=True)
