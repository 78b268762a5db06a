"""Prompts as a model's tokenizer reads them: ids, and the place of each token in the text.

A text encoder reads a window of so many tokens, 77 for the CLIP of Stable Diffusion. A longer prompt goes into
several windows, each with marks of its own, and is never cut: AUTOMATIC1111 and compel do the same. A window ends
with a word, so that no word is torn in two.

Needs transformers, but not torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import CLIPTokenizer

from diffugen_api.plan import SpecError
from diffugen_api.weights import Prompt, pieces_of
from diffugen_generator.models import ModelFolder
from diffugen_generator.prompt_limits import MARKS, token_limit

NO_PIECE = -1
"""The piece of marks and padding."""
_END_OF_WORD = "</w>"


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """One prompt as the text encoder gets it: `windows` times `limit` tokens, window after window."""

    windows: int
    ids: tuple[int, ...]
    """[windows * limit]; in each window start mark, words, end mark, padding."""
    mask: tuple[int, ...]
    """[windows * limit]; 0 for padding."""
    spans: tuple[tuple[int, int], ...]
    """[windows * limit]; begin and end of each token in the prompt's plain text, equal for marks and padding."""
    pieces: tuple[int, ...]
    """[windows * limit]; which of the prompt's pieces each token is of."""


class PromptTokenizer:
    """A model's tokenizer, with the length of the windows that its text encoder reads."""

    def __init__(self, model: ModelFolder) -> None:
        """Load the tokenizer from the model's folder; raise `SpecError` where it cannot be read."""
        try:
            self._tokenizer = CLIPTokenizer.from_pretrained(model.path / "tokenizer", local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise SpecError("UnsupportedModel", f"the tokenizer of {model.uri} cannot be read: {error}") from None
        self.limit = token_limit(model)
        """Tokens of a window, marks included."""

    def read(self, prompt: Prompt) -> TokenizedPrompt:
        """Tokenize `prompt`, padded to whole windows."""
        tokens = list(self._tokens(prompt))
        start, end, filler = (
            int(each)
            for each in (
                self._tokenizer.bos_token_id,
                self._tokenizer.eos_token_id,
                self._tokenizer.pad_token_id,
            )
        )
        nothing = ((0, 0), NO_PIECE)
        windows = list(self._windows(tokens))
        filled: list[tuple[int, int, tuple[int, int], int]] = []  # id, mask, span, piece
        for window in windows:
            filled.append((start, 1, *nothing))
            filled += [(token, 1, span, piece) for token, span, piece in window]
            filled.append((end, 1, *nothing))
            filled += [(filler, 0, *nothing)] * (self.limit - MARKS - len(window))
        ids, mask, spans, pieces = zip(*filled, strict=True)
        return TokenizedPrompt(len(windows), ids, mask, spans, pieces)

    def _tokens(self, prompt: Prompt) -> Iterator[tuple[int, tuple[int, int], int]]:
        """Yield id, span and piece of each token, without marks; pieces are tokenized each by itself, as in compel."""
        offset = 0
        for number, piece in enumerate(pieces_of(prompt)):
            encoded = self._tokenizer(piece.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            for token, (begin, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
                yield int(token), (offset + int(begin), offset + int(end)), number
            offset += len(piece.text)

    def _windows(
        self, tokens: Sequence[tuple[int, tuple[int, int], int]]
    ) -> Iterator[Sequence[tuple[int, tuple[int, int], int]]]:
        """Cut tokens into what fits between the marks, behind the last word that fits; at least one window."""
        room = self.limit - MARKS
        while len(tokens) > room:
            names = self._tokenizer.convert_ids_to_tokens([token for token, _, _ in tokens[:room]])
            ends = [at for at, name in enumerate(names, start=1) if name.endswith(_END_OF_WORD)]
            cut = ends[-1] if ends else room
            yield tokens[:cut]
            tokens = tokens[cut:]
        yield tokens
