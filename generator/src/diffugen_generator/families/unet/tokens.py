"""Tokenizes prompts with a model's tokenizer: ids, and the position of each token in the text.

A text encoder reads a window of a fixed number of tokens, 77 for the CLIP of Stable Diffusion. A longer prompt is
divided into several windows, each with its own marks, and is never shortened: AUTOMATIC1111 and compel do the same. A
window ends at the end of a word, so that no word is divided.

Needs transformers, but not torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from transformers import CLIPTokenizer

from diffugen_api.plan import SpecError
from diffugen_api.prompt_weights import Prompt, pieces_of
from diffugen_api.words import tokens_pattern
from diffugen_generator.failures import first_line
from diffugen_generator.families.embedding import Embedding
from diffugen_generator.families.folder import ModelFolder, settings_of
from diffugen_generator.families.prompts import NO_PIECE, TokenizedPrompt
from diffugen_generator.families.unet.architecture import END_OF_WORD, MARKS, encoder_of, tokens_at_once


class _Token(NamedTuple):
    """One token of a prompt, without marks."""

    id: int
    span: tuple[int, int]
    """Its position in the prompt's plain text."""
    piece: int
    ends_word: bool


class PromptTokenizer:
    """A model's tokenizer, with the window length of its text encoder and the words of the embeddings."""

    def __init__(self, model: ModelFolder, component: str = "tokenizer", embeddings: Sequence[Embedding] = ()) -> None:
        """Load the tokenizer from the model's folder; raise `SpecError` if it cannot be read."""
        try:
            self._tokenizer = CLIPTokenizer.from_pretrained(model.path / component, local_files_only=True)
            settings = settings_of(model.path / encoder_of(component) / "config.json")
            self.first_learnt = int(settings.get("vocab_size", len(self._tokenizer)))
            """The first id after the model's own words."""
        except Exception as error:  # tokenizers raises no more specific type
            raise SpecError(
                "UnsupportedModel",
                f"the {component} of the model {model.uri} cannot be read: {first_line(error)}; save it again with "
                "save_pretrained(), or name another in the stage's field model.",
            ) from error
        try:
            self.limit = tokens_at_once(model.path, component)
        except ValueError as error:
            raise SpecError("UnsupportedModel", f"the model {model.uri} {error}") from None
        """Tokens of a window, marks included."""
        self._learnt: dict[str, range] = {}
        taken = self.first_learnt
        for each in embeddings:
            self._learnt[each.token.lower()] = range(taken, taken + each.count)
            taken += each.count
        self._words = tokens_pattern(self._learnt)

    @property
    def end(self) -> int:
        """The id of the end mark, which follows the words of a window."""
        return int(self._tokenizer.eos_token_id)

    def read(self, prompt: Prompt) -> TokenizedPrompt:
        """Tokenize `prompt`, padded to whole windows."""
        tokens = list(self._tokens(prompt))
        start, filler = int(self._tokenizer.bos_token_id), int(self._tokenizer.pad_token_id)
        nothing = ((0, 0), NO_PIECE)
        windows = list(self._windows(tokens))
        filled: list[tuple[int, int, tuple[int, int], int]] = []  # id, mask, span, piece
        for window in windows:
            filled.append((start, 1, *nothing))
            filled += [(token.id, 1, token.span, token.piece) for token in window]
            filled.append((self.end, 1, *nothing))
            filled += [(filler, 0, *nothing)] * (self.limit - MARKS - len(window))
        ids, mask, spans, pieces = zip(*filled, strict=True)
        return TokenizedPrompt(len(windows), ids, mask, spans, pieces)

    def _tokens(self, prompt: Prompt) -> Iterator[_Token]:
        """Yield the tokens; each piece is tokenized separately, as in compel."""
        offset = 0
        for number, piece in enumerate(pieces_of(prompt)):
            done = 0
            for match in self._words.finditer(piece.text) if self._learnt else ():
                yield from self._plain(piece.text[done : match.start()], offset + done, number)
                ids = self._learnt[match.group().lower()]
                span = (offset + match.start(), offset + match.end())
                yield from (_Token(each, span, number, each == ids[-1]) for each in ids)
                done = match.end()
            yield from self._plain(piece.text[done:], offset + done, number)
            offset += len(piece.text)

    def _plain(self, text: str, offset: int, piece: int) -> Iterator[_Token]:
        """Yield the tokens of a text that has only the model's own words."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        names = self._tokenizer.convert_ids_to_tokens(encoded["input_ids"])
        for token, name, (begin, end) in zip(encoded["input_ids"], names, encoded["offset_mapping"], strict=True):
            yield _Token(int(token), (offset + int(begin), offset + int(end)), piece, name.endswith(END_OF_WORD))

    def _windows(self, tokens: Sequence[_Token]) -> Iterator[Sequence[_Token]]:
        """Divide tokens into windows, each up to the last word that fits between the marks; at least one window."""
        room = self.limit - MARKS
        while len(tokens) > room:
            ends = [at for at, token in enumerate(tokens[:room], start=1) if token.ends_word]
            cut = ends[-1] if ends else room
            yield tokens[:cut]
            tokens = tokens[cut:]
        yield tokens
