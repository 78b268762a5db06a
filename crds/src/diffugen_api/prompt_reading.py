"""Reads the weights in a spec's prompts."""

from __future__ import annotations

from diffugen_api.errors import SpecError
from diffugen_api.prompt_weights import Prompt, WeightError, read
from diffugen_api.v1alpha1 import LabeledDatasetSpec


def read_prompt(spec: LabeledDatasetSpec, text: str, field: str) -> Prompt:
    """Return a prompt of `field` with its weights read; raise `SpecError` if they cannot be read."""
    try:
        return read(text, spec.prompts.syntax)
    except WeightError as error:
        raise SpecError("InvalidWeights", f"{field}: {text!r}: {error}.") from None
