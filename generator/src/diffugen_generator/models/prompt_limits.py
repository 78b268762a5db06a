"""How much text a model reads at once, told by its settings without loading anything."""

from __future__ import annotations

from diffugen_api.plan import SpecError
from diffugen_generator.models.architecture import tokens_at_once
from diffugen_generator.models.model_folder import ModelFolder


def token_limit(model: ModelFolder, tokenizer: str = "tokenizer") -> int:
    """Return how many tokens the text encoder of `tokenizer` gets; raise `SpecError` where its settings do not say."""
    try:
        return tokens_at_once(model.path, tokenizer)
    except ValueError as error:
        raise SpecError("UnsupportedModel", f"the model {model.uri} {error}") from None
