"""Encodes texts for a UNet: the concatenated states of one or two CLIP text encoders, with the prompt's weights.

Weights are applied as in compel (https://github.com/damian0815/compel, embeddings_provider.py). With z the states of
the text and e those of the empty text, every token of weight w becomes e + w (z - e). In addition, a weight below 1
makes the piece disappear and does not only weaken it: the states are mixed with those of the same text in which the
encoder does not see the piece. The proportion of the latter is tan((1 - w) pi / 2): 0 at w = 1, and 1 at w = 1/2. At
w = 0 only the latter count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from diffugen_api.prompt_weights import Prompt, pieces_of
from diffugen_generator.families.model import EncodedText
from diffugen_generator.families.prompts import NO_PIECE
from diffugen_generator.families.unet.tokens import PromptTokenizer

_LEAST = 1e-5
"""The value used for a weight of 0, because the tangent is infinite there."""
WINDOWS_AT_ONCE = 64
"""How many windows a text encoder reads at once."""


@dataclass(frozen=True)
class TextEncoder:
    """One of a pipeline's text encoders, with the tokenizer that it was trained with."""

    tokenizer: PromptTokenizer
    network: Any
    """A transformers `CLIPTextModel`, or `CLIPTextModelWithProjection`."""
    last: bool = True
    """Whether the states after the last layer are read; else the states before it, as in Stable Diffusion XL."""


class _Pass(NamedTuple):
    """One pass of a text through the encoders, which do not see its piece `without`."""

    text: Prompt
    without: int | None = None


class TextEncoding:
    """Encodes texts with a pipeline's text encoders."""

    def __init__(self, encoders: Sequence[TextEncoder], device: torch.device) -> None:
        """Encode with `encoders`, whose states are concatenated, on `device`."""
        self._encoders = encoders
        self._tokenizer = encoders[0].tokenizer
        self._device = device
        self._empty: EncodedText | None = None

    @torch.inference_mode()
    def encode(self, texts: Sequence[Prompt]) -> list[EncodedText]:
        """Return each text's states [windows * limit, width] with its weights applied, and its pooled state [width]."""
        passes = [_Pass(text, without) for text in texts for without in (None, *_lowered(text))]
        hidden = dict(zip(passes, self._hidden(passes), strict=True))
        return [self._weighted(text, hidden) for text in texts]

    def _of_empty(self) -> torch.Tensor:
        """Return the states of the empty text: [limit, width]."""
        if self._empty is None:
            self._empty = self.encode([""])[0]
        return self._empty.states

    def _weighted(self, text: Prompt, hidden: Mapping[_Pass, EncodedText]) -> EncodedText:
        """Return a text's states with its weights applied."""
        plain = hidden[_Pass(text)]
        weights = [piece.weight for piece in pieces_of(text)]
        if all(weight == 1 for weight in weights):
            return plain
        states = plain.states
        read = self._tokenizer.read(text)
        of_tokens = [1.0 if piece == NO_PIECE else weights[piece] for piece in read.pieces]
        scale = torch.tensor(of_tokens, device=states.device)[:, None]  # [windows * limit, 1]
        empty = self._of_empty().repeat(read.windows, 1).float()
        mixed, total = _scaled(states, empty, scale), 1.0
        for piece in sorted({piece for piece in read.pieces if piece != NO_PIECE and weights[piece] < 1}):
            share = math.tan((1 - max(_LEAST, weights[piece])) * math.pi / 2)
            mixed = mixed + share * _scaled(hidden[_Pass(text, piece)].states, empty, scale)
            total += share
        return EncodedText((mixed / total).to(states.dtype), plain.pooled)

    def _hidden(self, passes: Sequence[_Pass]) -> list[EncodedText]:
        """Return for each pass the concatenated states of the encoders, and the last encoder's pooled state."""
        by_encoder = [self._encoded(each, passes) for each in self._encoders]
        return [
            EncodedText(torch.cat([each.states for each in of_pass], dim=-1), of_pass[-1].pooled)
            for of_pass in zip(*by_encoder, strict=True)
        ]

    def _encoded(self, encoder: TextEncoder, passes: Sequence[_Pass]) -> list[EncodedText]:
        """Return one encoder's states of each pass; the pooled state is empty if the encoder has no projection."""
        read = [encoder.tokenizer.read(each.text) for each in passes]
        masked = getattr(encoder.network.config, "use_attention_mask", False)
        rows: list[Sequence[int]] = []
        masks: list[Sequence[int]] = []
        for each, tokens in zip(passes, read, strict=True):
            seen = [
                int(bool(mark or not masked) and (each.without is None or piece != each.without))
                for mark, piece in zip(tokens.mask, tokens.pieces, strict=True)
            ]
            for start in range(0, len(tokens.ids), encoder.tokenizer.limit):
                rows.append(tokens.ids[start : start + encoder.tokenizer.limit])
                masks.append(seen[start : start + encoder.tokenizer.limit])
        pieces = [
            self._run(encoder, rows[start : start + WINDOWS_AT_ONCE], masks[start : start + WINDOWS_AT_ONCE])
            for start in range(0, len(rows), WINDOWS_AT_ONCE)
        ]
        states, last = (torch.cat(each) for each in zip(*pieces, strict=True))  # [rows, limit, width]
        projection = None if encoder.last else getattr(encoder.network, "text_projection", None)
        found, row = [], 0
        for tokens in read:
            pooled = states.new_empty(0)
            if projection is not None:
                # At the first end mark. transformers takes the greatest id, which would be the id of a new word.
                pooled = projection(last[row, tokens.ids.index(encoder.tokenizer.end)])
            found.append(EncodedText(states[row : row + tokens.windows].flatten(0, 1), pooled))
            row += tokens.windows
        return found

    def _run(
        self, encoder: TextEncoder, rows: Sequence[Sequence[int]], masks: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the states that the UNet reads, and the last states, of some windows: [rows, limit, width] each."""
        device = self._device
        ids = torch.tensor(rows, device=device)
        mask = None if all(map(all, masks)) else torch.tensor(masks, device=device)
        if encoder.last:
            states: torch.Tensor = encoder.network(ids, attention_mask=mask)[0]
            return states, states
        seen_through = encoder.network(ids, attention_mask=mask, output_hidden_states=True)
        return seen_through.hidden_states[-2], seen_through.last_hidden_state


def _lowered(text: Prompt) -> list[int]:
    """Return the pieces of a text whose weight is below 1."""
    return [number for number, piece in enumerate(pieces_of(text)) if piece.weight < 1]


def _scaled(states: torch.Tensor, empty: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return e + w (z - e) in fp32, and z itself where w is 1."""
    states = states.float()
    return torch.where(scale == 1, states, empty + scale * (states - empty))
