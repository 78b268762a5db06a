"""Texts as the UNet reads them: each distinct one is encoded once, alone, and kept.

Alone, so that a text's states are the same to the bit whatever else is drawn beside it. A text of several windows
has the states of one after the other. Texts that go into one batch must be equally long, and what a shorter one is
filled up with is read by the UNet, too: so only texts of equally many windows may share a batch.

Weights are applied as compel does (https://github.com/damian0815/compel, embeddings_provider.py). With z the states of
the text and e those of the empty one, every token of weight w becomes e + w (z - e). A weight below 1 shall moreover
make the piece disappear, not only be whispered: the states are mixed with those of the same text in which the encoder
does not see the piece, the latter in the proportion tan((1 - w) pi / 2): 0 at 1, 1 at 1/2, and all of it at 0.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch

from diffugen_api.weights import Prompt, pieces_of
from diffugen_generator.diffusion.components import Components, TextEncoder
from diffugen_generator.diffusion.tokens import NO_PIECE

_LEAST = 1e-5
"""What a weight of 0 counts as: the tangent is infinite there."""

KEPT = 512
"""Texts that are kept; at 77 x 768 in bf16 some 60 MB."""


class TextStates:
    """A model's text encoder behind a cache of the least recently used texts."""

    def __init__(self, components: Components) -> None:
        """Encode with the model's own tokenizer and encoder."""
        self._components = components
        self._kept: OrderedDict[Prompt, tuple[torch.Tensor, torch.Tensor]] = OrderedDict()

    def of(self, texts: Sequence[Prompt], windows: int | None = None) -> torch.Tensor:
        """Return the last hidden states of `texts`: [b, windows * limit, width].

        Shorter texts are filled up with the empty text, to `windows` or to the longest of them.
        """
        states = [self._one(text) for text in texts]
        tokens = max(len(each) for each in states) if windows is None else windows * self._components.tokenizer.limit
        return torch.stack([self._filled(each, tokens) for each in states])

    def pooled(self, texts: Sequence[Prompt]) -> torch.Tensor:
        """Return what the last encoder makes of each text's first window as a whole, unweighted: [b, width]."""
        return torch.stack([self._both(text)[1] for text in texts])

    def added(self, pooled: torch.Tensor, height: int, width: int) -> dict[str, torch.Tensor] | None:
        """Return what the UNet is told besides the texts' states; nothing where it is not Stable Diffusion XL's.

        `pooled` is [b, width] as `pooled` returns it. The picture, `height` x `width` pixels, is told to be whole: as
        large as it was, nothing cropped.
        """
        if not self._components.extended:
            return None
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=pooled.dtype, device=pooled.device)
        return {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}

    def windows(self, text: Prompt) -> int:
        """Return how many windows of the text encoder `text` takes."""
        return len(self._one(text)) // self._components.tokenizer.limit

    def _filled(self, states: torch.Tensor, tokens: int) -> torch.Tensor:
        missing = (tokens - len(states)) // self._components.tokenizer.limit
        return torch.cat([states, *[self._one("")] * missing]) if missing else states

    def _one(self, text: Prompt) -> torch.Tensor:
        return self._both(text)[0]

    def _both(self, text: Prompt) -> tuple[torch.Tensor, torch.Tensor]:
        if (states := self._kept.get(text)) is not None:
            self._kept.move_to_end(text)
            return states
        states = self._encode(text)
        self._kept[text] = states
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return states

    @torch.inference_mode()
    def _encode(self, text: Prompt) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a text's states [windows * limit, width], and what is pooled of it [width]."""
        read = self._components.tokenizer.read(text)
        weights = [piece.weight for piece in pieces_of(text)]
        states, pooled = self._hidden(text)
        if all(weight == 1 for weight in weights):
            return states, pooled
        of_tokens = [1.0 if piece == NO_PIECE else weights[piece] for piece in read.pieces]
        scale = torch.tensor(of_tokens, device=states.device)[:, None]  # [windows * limit, 1]
        empty = self._one("").repeat(read.windows, 1).float()
        mixed, total = _scaled(states, empty, scale), 1.0
        for piece in sorted({piece for piece in read.pieces if piece != NO_PIECE and weights[piece] < 1}):
            share = math.tan((1 - max(_LEAST, weights[piece])) * math.pi / 2)
            mixed = mixed + share * _scaled(self._hidden(text, without=piece)[0], empty, scale)
            total += share
        return (mixed / total).to(states.dtype), pooled

    def _hidden(self, text: Prompt, without: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the encoders' states [windows * limit, width], side by side, and the last one's pooled text [width].

        They do not see the piece `without`.
        """
        states, pooled = zip(*(self._encoded(each, text, without) for each in self._components.encoders), strict=True)
        return torch.cat(states, dim=-1), pooled[-1]

    def _encoded(self, encoder: TextEncoder, text: Prompt, without: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one encoder's states [windows * limit, width] and its pooled text [width], empty where it has none."""
        read = encoder.tokenizer.read(text)
        device = self._components.device
        ids = torch.tensor(read.ids, device=device).reshape(read.windows, -1)  # [windows, limit]
        mask = None
        masked = getattr(encoder.network.config, "use_attention_mask", False)
        if masked or without is not None:
            seen = torch.tensor(read.mask if masked else [1] * len(read.mask), device=device)
            hidden = torch.tensor([piece == without for piece in read.pieces], device=device)
            mask = seen.masked_fill(hidden, 0).reshape(read.windows, -1)  # [windows, limit]
        if encoder.last:
            states: torch.Tensor = encoder.network(ids, attention_mask=mask)[0]  # [windows, limit, width]
            return states.flatten(0, 1), states.new_empty(0)
        seen_through = encoder.network(ids, attention_mask=mask, output_hidden_states=True)
        states = seen_through.hidden_states[-2]
        pooled = states.new_empty(0)
        if (projection := getattr(encoder.network, "text_projection", None)) is not None:
            # At the first end mark. transformers looks for the greatest id, which a learnt word's would be.
            end = read.ids.index(encoder.tokenizer.end)
            pooled = projection(seen_through.last_hidden_state[0, end])
        return states.flatten(0, 1), pooled


def _scaled(states: torch.Tensor, empty: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return e + w (z - e) in fp32, and z itself where w is 1."""
    states = states.float()
    return torch.where(scale == 1, states, empty + scale * (states - empty))
