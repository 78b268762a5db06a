"""Texts as the UNet reads them: each distinct one is encoded once, alone, and kept.

Alone, so that a text's states are the same to the bit whatever else is drawn beside it.
"""

from __future__ import annotations

from collections import OrderedDict

import torch

from diffugen_generator.diffusion.components import Components

KEPT = 512
"""Texts that are kept; at 77 x 768 in bf16 some 60 MB."""


class TextStates:
    """A model's text encoder behind a cache of the least recently used texts."""

    def __init__(self, components: Components) -> None:
        """Encode with the model's own tokenizer and encoder."""
        self._components = components
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()

    def of(self, texts: list[str]) -> torch.Tensor:
        """Return the last hidden states of `texts`: [b, tokens, width]."""
        return torch.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> torch.Tensor:
        if (states := self._kept.get(text)) is not None:
            self._kept.move_to_end(text)
            return states
        states = self._encode(text)  # [tokens, width]
        self._kept[text] = states
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return states

    @torch.inference_mode()
    def _encode(self, text: str) -> torch.Tensor:
        parts = self._components
        read = parts.tokenizer.read(text)
        ids = torch.tensor([read.ids], device=parts.device)  # [1, tokens]
        mask = None
        if getattr(parts.text_encoder.config, "use_attention_mask", False):
            mask = torch.tensor([read.mask], device=parts.device)  # [1, tokens]
        states: torch.Tensor = parts.text_encoder(ids, attention_mask=mask)[0]
        return states[0]
