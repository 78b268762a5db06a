"""Texts as the UNet reads them: each distinct one is encoded once, beside the others of its batch, and kept.

A text of several windows has the states of one after the other. Texts that go into one batch must be equally long, and
what a shorter one is filled up with is read by the UNet, too: so only texts of equally many windows may share a batch.

Weights are applied as compel does (https://github.com/damian0815/compel, embeddings_provider.py). With z the states of
the text and e those of the empty one, every token of weight w becomes e + w (z - e). A weight below 1 shall moreover
make the piece disappear, not only be whispered: the states are mixed with those of the same text in which the encoder
does not see the piece, the latter in the proportion tan((1 - w) pi / 2): 0 at 1, 1 at 1/2, and all of it at 0.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch

from diffugen_api.prompt_weights import Prompt, pieces_of
from diffugen_generator.diffusion.components import Components, TextEncoder
from diffugen_generator.diffusion.tokens import NO_PIECE

_LEAST = 1e-5
"""What a weight of 0 counts as: the tangent is infinite there."""

KEPT = 512
"""Texts that are kept; at 77 x 768 in bf16 some 60 MB."""
WINDOWS_AT_ONCE = 64
"""Windows that go through a text encoder together."""

States = tuple[torch.Tensor, torch.Tensor]
"""A text's states [windows * limit, width], and what is pooled of it [width]."""


class _Pass(NamedTuple):
    """A text on its way through the encoders, which do not see its piece `without`."""

    text: Prompt
    without: int | None = None


class TextStates:
    """A model's text encoder behind a cache of the least recently used texts."""

    def __init__(self, components: Components) -> None:
        """Encode with the model's own tokenizer and encoder."""
        self._components = components
        self._kept: OrderedDict[Prompt, States] = OrderedDict()

    def of(self, texts: Sequence[Prompt], windows: int | None = None) -> torch.Tensor:
        """Return the last hidden states of `texts`: [b, windows * limit, width].

        Shorter texts are filled up with the empty text, to `windows` or to the longest of them.
        """
        states = [each for each, _ in self._all(texts)]
        tokens = max(len(each) for each in states) if windows is None else windows * self._components.tokenizer.limit
        return torch.stack([self._filled(each, tokens) for each in states])

    def pooled(self, texts: Sequence[Prompt]) -> torch.Tensor:
        """Return what the last encoder makes of each text's first window as a whole, unweighted: [b, width]."""
        return torch.stack([pooled for _, pooled in self._all(texts)])

    def added(self, pooled: torch.Tensor, height: int, width: int) -> dict[str, torch.Tensor] | None:
        """Return what the UNet is told besides the texts' states; nothing where it is not Stable Diffusion XL's.

        `pooled` is [b, width] as `pooled` returns it. The image, `height` x `width` pixels, is told to be whole: as
        large as it was, nothing cropped.
        """
        if not self._components.is_sdxl:
            return None
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=pooled.dtype, device=pooled.device)
        return {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}

    def windows(self, text: Prompt) -> int:
        """Return how many windows of the text encoder `text` takes."""
        return self._components.tokenizer.read(text).windows

    def read(self, texts: Iterable[Prompt]) -> None:
        """Encode together what is not known yet, before one after the other is asked for."""
        self._all(list(texts))

    def _filled(self, states: torch.Tensor, tokens: int) -> torch.Tensor:
        missing = (tokens - len(states)) // self._components.tokenizer.limit
        return torch.cat([states, *[self._one("")] * missing]) if missing else states

    def _one(self, text: Prompt) -> torch.Tensor:
        return self._all([text])[0][0]

    def _all(self, texts: Sequence[Prompt]) -> list[States]:
        """Return the states of each text; those that are not known are encoded together."""
        known = {text: kept for text in texts if (kept := self._kept.get(text)) is not None}
        if unknown := [text for text in dict.fromkeys(texts) if text not in known]:
            known |= zip(unknown, self._encode(unknown), strict=True)
        for text, states in known.items():
            self._kept[text] = states
            self._kept.move_to_end(text)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return [known[text] for text in texts]

    @torch.inference_mode()
    def _encode(self, texts: Sequence[Prompt]) -> list[States]:
        passes = [_Pass(text, without) for text in texts for without in (None, *_lowered(text))]
        hidden = dict(zip(passes, self._hidden(passes), strict=True))
        return [self._weighted(text, hidden) for text in texts]

    def _weighted(self, text: Prompt, hidden: Mapping[_Pass, States]) -> States:
        """Return a text's states with its weights applied."""
        states, pooled = hidden[_Pass(text)]
        weights = [piece.weight for piece in pieces_of(text)]
        if all(weight == 1 for weight in weights):
            return states, pooled
        read = self._components.tokenizer.read(text)
        of_tokens = [1.0 if piece == NO_PIECE else weights[piece] for piece in read.pieces]
        scale = torch.tensor(of_tokens, device=states.device)[:, None]  # [windows * limit, 1]
        empty = self._one("").repeat(read.windows, 1).float()
        mixed, total = _scaled(states, empty, scale), 1.0
        for piece in sorted({piece for piece in read.pieces if piece != NO_PIECE and weights[piece] < 1}):
            share = math.tan((1 - max(_LEAST, weights[piece])) * math.pi / 2)
            mixed = mixed + share * _scaled(hidden[_Pass(text, piece)][0], empty, scale)
            total += share
        return (mixed / total).to(states.dtype), pooled

    def _hidden(self, passes: Sequence[_Pass]) -> list[States]:
        """Return of each pass the encoders' states side by side, and what the last encoder pools."""
        by_encoder = [self._encoded(each, passes) for each in self._components.encoders]
        return [
            (torch.cat([states for states, _ in of_pass], dim=-1), of_pass[-1][1])
            for of_pass in zip(*by_encoder, strict=True)
        ]

    def _encoded(self, encoder: TextEncoder, passes: Sequence[_Pass]) -> list[States]:
        """Return one encoder's states of each pass; what it pools is empty where it has no projection."""
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
                # At the first end mark. transformers looks for the greatest id, which a learnt word's would be.
                pooled = projection(last[row, tokens.ids.index(encoder.tokenizer.end)])
            found.append((states[row : row + tokens.windows].flatten(0, 1), pooled))
            row += tokens.windows
        return found

    def _run(
        self, encoder: TextEncoder, rows: Sequence[Sequence[int]], masks: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the states that the UNet reads, and the last ones, of some windows: [rows, limit, width] each."""
        device = self._components.device
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
