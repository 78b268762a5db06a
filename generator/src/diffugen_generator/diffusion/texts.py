"""A cache of encoded texts: each distinct text is encoded once, together with the others of its batch, and kept.

The states of a text with several windows are the states of its windows, one after the other. Texts in one batch must
have the same length. The network also reads the padding of a shorter text. So only texts with the same number of
windows share a batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch

from diffugen_api.prompt_weights import Prompt
from diffugen_generator.families.model import Conditioning, DiffusionModel, EncodedText

KEPT = 512
"""The most texts that are kept; at 77 x 768 in bf16 some 60 MB."""


class TextStates:
    """Encodes texts with a model. A cache keeps the most recently used ones."""

    def __init__(self, model: DiffusionModel) -> None:
        """Encode with `model`."""
        self._model = model
        self._kept: OrderedDict[Prompt, EncodedText] = OrderedDict()

    def conditioning(self, texts: Sequence[Prompt], windows: int | None = None) -> Conditioning:
        """Return the network's input for `texts`, padded as in `of`."""
        return Conditioning(self.of(texts, windows), self.pooled(texts))

    def of(self, texts: Sequence[Prompt], windows: int | None = None) -> torch.Tensor:
        """Return the states of `texts`: [b, tokens, width].

        Shorter texts are padded with the empty text, to `windows` or to the longest text.
        """
        states = [each.states for each in self._all(texts)]
        tokens = max(map(len, states))
        if windows is not None:
            tokens = windows * (len(states[0]) // self.windows(texts[0]))
        return torch.stack([self._filled(each, tokens) for each in states])

    def pooled(self, texts: Sequence[Prompt]) -> torch.Tensor:
        """Return the pooled state of each text, without weights: [b, width]."""
        return torch.stack([each.pooled for each in self._all(texts)])

    def windows(self, text: Prompt) -> int:
        """Return how many windows of the text encoder `text` takes."""
        return self._model.read(text).windows

    def read(self, texts: Iterable[Prompt]) -> None:
        """Encode all `texts` that are not in the cache together, before they are needed one by one."""
        self._all(list(texts))

    def _filled(self, states: torch.Tensor, tokens: int) -> torch.Tensor:
        if len(states) == tokens:
            return states
        empty = self._empty()
        return torch.cat([states, *[empty] * ((tokens - len(states)) // len(empty))])

    def _empty(self) -> torch.Tensor:
        """Return the states of the empty text: one window."""
        return self._all([""])[0].states

    def _all(self, texts: Sequence[Prompt]) -> list[EncodedText]:
        """Return each encoded text; those that are not in the cache are encoded together."""
        known = {text: kept for text in texts if (kept := self._kept.get(text)) is not None}
        if unknown := [text for text in dict.fromkeys(texts) if text not in known]:
            known |= zip(unknown, self._model.encode(unknown), strict=True)
        for text, encoded in known.items():
            self._kept[text] = encoded
            self._kept.move_to_end(text)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return [known[text] for text in texts]
