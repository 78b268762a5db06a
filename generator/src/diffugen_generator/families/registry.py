"""The families that models can be of, by the class of their pipeline. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from diffugen_api.plan import SpecError
from diffugen_generator.families.config import FamilyConfig
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.config import UNET

FAMILIES: list[FamilyConfig] = [UNET]
"""Every family; a new one is added here."""


def pipelines() -> Iterator[str]:
    """Yield the pipeline classes that can be drawn with: values of `_class_name` in model_index.json."""
    for family in FAMILIES:
        yield from family.pipelines


def family_of(pipeline: str) -> FamilyConfig:
    """Return the family of a pipeline class; raise `KeyError` where there is none."""
    for family in FAMILIES:
        if pipeline in family.pipelines:
            return family
    raise KeyError(pipeline)


def token_limit(model: ModelFolder, tokenizer: str = "tokenizer") -> int:
    """Return the tokens of one window of a model's text encoder; raise `SpecError` where its settings do not say."""
    try:
        return family_of(model.pipeline).token_limit(model.path, tokenizer)
    except ValueError as error:
        raise SpecError("UnsupportedModel", f"the model {model.uri} {error}") from None
