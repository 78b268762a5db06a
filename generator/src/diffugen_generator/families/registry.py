"""The registry of model families, by the class of the pipeline. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from diffugen_api.plan import SpecError
from diffugen_generator.families.checkpoint import CheckpointFolder, CheckpointHeader, Prediction
from diffugen_generator.families.config import FamilyConfig
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.foreign_files import described
from diffugen_generator.families.unet.config import UNET

FAMILIES: list[FamilyConfig] = [UNET]
"""All families; add a new one here."""


def pipelines() -> Iterator[str]:
    """Yield the supported pipeline classes: values of `_class_name` in model_index.json."""
    for family in FAMILIES:
        yield from family.pipelines


def family_of(pipeline: str) -> FamilyConfig:
    """Return the family of a pipeline class; raise `KeyError` if there is none."""
    for family in FAMILIES:
        if pipeline in family.pipelines:
            return family
    raise KeyError(pipeline)


def read_checkpoint(header: CheckpointHeader, predicts: Prediction | None) -> CheckpointFolder:
    """Return the folder that a checkpoint in a single file stands for.

    Raises `ValueError` if no family can draw with the file; the error's text ends a sentence about the model.

    Args:
        header: the tensors of the file, whose numbers are not read.
        predicts: what the network predicts, as the manifest says; if None, what the file says.
    """
    for family in FAMILIES:
        if (found := family.read_checkpoint(header, predicts)) is not None:
            return found
    raise ValueError(described(header.shapes))


def token_limit(model: ModelFolder, tokenizer: str = "tokenizer") -> int:
    """Return the tokens of one window of a model's text encoder; raise `SpecError` if its settings lack the number."""
    try:
        return family_of(model.pipeline).token_limit(model.path, tokenizer)
    except ValueError as error:
        raise SpecError("UnsupportedModel", f"the model {model.uri} {error}") from None
