"""Prompts as a model's tokenizer reads them: ids, length, and the place of each token in the text.

Needs transformers, but not torch, so that a plan can refuse a prompt that is too long before any GPU is asked
for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transformers import CLIPTokenizer

from diffugen_api.plan import SpecError
from diffugen_generator.models import ModelFolder
from diffugen_generator.prompt_limits import MARKS, token_limit


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """One prompt as the text encoder gets it."""

    ids: tuple[int, ...]
    """[limit]; start mark, words, end mark, padding."""
    mask: tuple[int, ...]
    """[limit]; 0 for padding."""
    spans: tuple[tuple[int, int], ...]
    """[limit]; begin and end of each token in the prompt's text, equal for marks and padding."""


class PromptTokenizer:
    """A model's tokenizer, with the length that its text encoder can read."""

    def __init__(self, model: ModelFolder) -> None:
        """Load the tokenizer from the model's folder; raise `SpecError` where it cannot be read."""
        self.uri = model.uri
        try:
            self._tokenizer = CLIPTokenizer.from_pretrained(model.path / "tokenizer", local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise SpecError("UnsupportedModel", f"the tokenizer of {model.uri} cannot be read: {error}") from None
        self.limit = token_limit(model)
        """Tokens of every text, marks included."""

    def read(self, prompt: str, *, field: str = "prompt") -> TokenizedPrompt:
        """Tokenize `prompt`, padded to the limit; raise `SpecError` naming `field` where it is longer."""
        self.check([prompt], field=field)
        encoded = self._tokenizer(
            prompt, padding="max_length", max_length=self.limit, truncation=True, return_offsets_mapping=True
        )
        spans = tuple((int(begin), int(end)) for begin, end in encoded["offset_mapping"])
        return TokenizedPrompt(tuple(encoded["input_ids"]), tuple(encoded["attention_mask"]), spans)

    def check(self, prompts: Iterable[str], *, field: str = "prompt") -> None:
        """Raise `SpecError` naming `field` for the first prompt of more tokens than the model reads."""
        room = self.limit - MARKS
        for prompt in prompts:
            if len(prompt.encode()) <= room:  # a token covers at least one byte
                continue
            count = len(self._tokenizer(prompt)["input_ids"]) - MARKS
            if count > room:
                raise SpecError(
                    "PromptTooLong",
                    f"{field}: {_shortened(prompt)!r} has {count} tokens; {self.uri} reads {room}. Shorten it.",
                )


def _shortened(text: str, length: int = 200) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
