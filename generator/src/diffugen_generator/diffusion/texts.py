"""Texts as the UNet reads them: each distinct one is encoded once, alone, and kept.

Alone, so that a text's states are the same to the bit whatever else is drawn beside it. A text of several windows
has the states of one after the other. Texts that go into one batch must be equally long, and what a shorter one is
filled up with is read by the UNet, too: so only texts of equally many windows may share a batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from diffugen_api.weights import Prompt
from diffugen_generator.diffusion.components import Components
from diffugen_generator.diffusion.tokens import TokenizedPrompt

KEPT = 512
"""Texts that are kept; at 77 x 768 in bf16 some 60 MB."""


class TextStates:
    """A model's text encoder behind a cache of the least recently used texts."""

    def __init__(self, components: Components) -> None:
        """Encode with the model's own tokenizer and encoder."""
        self._components = components
        self._kept: OrderedDict[Prompt, torch.Tensor] = OrderedDict()

    def of(self, texts: Sequence[Prompt], windows: int | None = None) -> torch.Tensor:
        """Return the last hidden states of `texts`: [b, windows * limit, width].

        Shorter texts are filled up with the empty text, to `windows` or to the longest of them.
        """
        states = [self._one(text) for text in texts]
        tokens = max(len(each) for each in states) if windows is None else windows * self._components.tokenizer.limit
        return torch.stack([self._filled(each, tokens) for each in states])

    def windows(self, text: Prompt) -> int:
        """Return how many windows of the text encoder `text` takes."""
        return len(self._one(text)) // self._components.tokenizer.limit

    def _filled(self, states: torch.Tensor, tokens: int) -> torch.Tensor:
        missing = (tokens - len(states)) // self._components.tokenizer.limit
        return torch.cat([states, *[self._one("")] * missing]) if missing else states

    def _one(self, text: Prompt) -> torch.Tensor:
        if (states := self._kept.get(text)) is not None:
            self._kept.move_to_end(text)
            return states
        states = self._encode(text)  # [windows * limit, width]
        self._kept[text] = states
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return states

    @torch.inference_mode()
    def _encode(self, text: Prompt) -> torch.Tensor:
        return self._hidden(self._components.tokenizer.read(text))

    def _hidden(self, read: TokenizedPrompt) -> torch.Tensor:
        """Return the encoder's last hidden states [windows * limit, width]."""
        parts = self._components
        ids = torch.tensor(read.ids, device=parts.device).reshape(read.windows, -1)  # [windows, limit]
        mask = None
        if getattr(parts.text_encoder.config, "use_attention_mask", False):
            mask = torch.tensor(read.mask, device=parts.device).reshape(read.windows, -1)  # [windows, limit]
        states: torch.Tensor = parts.text_encoder(ids, attention_mask=mask)[0]  # [windows, limit, width]
        return states.flatten(0, 1)
