"""Whether prompts fit a model, asked before any model runs: no prompt is ever cut silently.

Most prompts are so short that their bytes alone prove it. Only for longer ones is the tokenizer loaded; where its
library is missing (the light image) the question is left to the worker, which asks it again.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from diffugen_api.plan import SpecError
from diffugen_generator.models import ModelFolder, settings_of

if TYPE_CHECKING:
    from diffugen_generator.diffusion.tokens import PromptTokenizer

MARKS = 2
"""The start and end marks that CLIP puts around a prompt."""


class PromptLimit:
    """The longest prompt that a model reads."""

    def __init__(self, model: ModelFolder) -> None:
        """Read the limit from the model's settings; raise `SpecError` where they do not say."""
        self._model = model
        self.tokens = token_limit(model)
        """Tokens of every text, marks included: 77 for the CLIP of Stable Diffusion 1 and 2."""

    def check(self, prompt: str, *, field: str = "prompt") -> None:
        """Raise `SpecError` naming `field` where `prompt` has more tokens than the model reads."""
        if len(prompt.encode()) <= self.tokens - MARKS:  # a token covers at least one byte
            return
        if self._tokenizer is not None:
            self._tokenizer.check([prompt], field=field)

    @cached_property
    def _tokenizer(self) -> PromptTokenizer | None:
        try:
            from diffugen_generator.diffusion.tokens import PromptTokenizer  # noqa: PLC0415 - two seconds, if at all
        except ModuleNotFoundError:
            return None
        return PromptTokenizer(self._model)


def token_limit(model: ModelFolder) -> int:
    """Return how many tokens the model's text encoder gets; raise `SpecError` where its settings do not say."""
    try:
        positions = int(settings_of(model.path / "text_encoder" / "config.json")["max_position_embeddings"])
        longest = settings_of(model.path / "tokenizer" / "tokenizer_config.json").get("model_max_length", positions)
        return min(positions, int(longest))
    except (KeyError, TypeError, ValueError) as error:
        raise SpecError(
            "UnsupportedModel", f"the model {model.uri} does not say how long its texts may be: {error}"
        ) from None
