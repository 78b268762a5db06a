"""Reads the weights in a spec's prompts."""

from __future__ import annotations

import re

from diffugen_api.errors import SpecError
from diffugen_api.prompt_weights import Prompt, WeightError, read
from diffugen_api.v1alpha1 import LabeledDatasetSpec

_SHOWN = 200
"""The most characters of a prompt that a message shows."""

_LORA = re.compile(r"<(?:lora|lyco):(?P<name>[^<>:]{0,80})(?::(?P<weight>[^<>:]{0,20}))?[^<>]{0,40}>", re.IGNORECASE)
"""A LoRA as A1111's web UI writes it in a prompt."""


def read_prompt(spec: LabeledDatasetSpec, text: str, field: str) -> Prompt:
    """Return a prompt of `field` with its weights read; raise `SpecError` if they cannot be read, or it is too long."""
    check_length(spec, text, field)
    return read_weights(spec, text, field)


def read_weights(spec: LabeledDatasetSpec, text: str, field: str) -> Prompt:
    """Return a prompt of `field`, of any length, with its weights read; raise `SpecError` if they cannot be read."""
    if match := _LORA.search(text):
        raise SpecError(
            "LoraInPrompt",
            f"{field}: {match[0]!r} has no meaning in a prompt; give the stage loras: "
            f"[{{uri: …/{match['name']}.safetensors, weight: {match['weight'] or 1}}}] and remove it here.",
        )
    try:
        return read(text, spec.prompts.syntax)
    except WeightError as error:
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        raise SpecError("InvalidWeights", f"{field}: {shown!r}: {error}.") from None


def check_length(spec: LabeledDatasetSpec, text: str, field: str) -> None:
    """Raise `SpecError` naming `field` if a prompt has more than `spec.prompts.maxBytes`."""
    count, most = len(text.encode(errors="replace")), spec.prompts.max_bytes
    if count > most:
        raise SpecError(
            "PromptTooLong",
            f"{field}: a prompt has {count:,} bytes with its values in it, and the most are {most:,}; shorten the "
            "template or its values, or raise spec.prompts.maxBytes.",
        )
