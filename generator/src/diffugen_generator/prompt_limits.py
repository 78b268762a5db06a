"""How much text a model reads at once, told by its settings without loading anything."""

from __future__ import annotations

from diffugen_api.plan import SpecError
from diffugen_generator.models import ModelFolder, settings_of

MARKS = 2
"""The start and end marks that CLIP puts around a prompt."""


def token_limit(model: ModelFolder, tokenizer: str = "tokenizer") -> int:
    """Return how many tokens the text encoder of `tokenizer` gets; raise `SpecError` where its settings do not say."""
    try:
        positions = int(settings_of(model.path / encoder_of(tokenizer) / "config.json")["max_position_embeddings"])
        longest = settings_of(model.path / tokenizer / "tokenizer_config.json").get("model_max_length", positions)
        limit = min(positions, int(longest))
    except (KeyError, TypeError, ValueError) as error:
        raise SpecError(
            "UnsupportedModel", f"the model {model.uri} does not say how long its texts may be: {error}"
        ) from None
    if limit <= MARKS:
        raise SpecError("UnsupportedModel", f"the model {model.uri} reads texts of {limit} tokens: no word fits.")
    return limit


def encoder_of(tokenizer: str) -> str:
    """Return the component that reads what `tokenizer` writes: `tokenizer_2` is of `text_encoder_2`."""
    return tokenizer.replace("tokenizer", "text_encoder")
