"""Watching images while they are drawn: evidence from all sampling steps, as DAAM has it.

What a sampling shows is gone when it is over, so such evidence is only to be had by drawing: for an image that is
there already, its recipe is drawn once more, and only its evidence kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional

from diffugen_api.plan import SpecError
from diffugen_api.prompt_weights import plain
from diffugen_generator.diffusion.components import Components
from diffugen_generator.diffusion.drawing import Sampling
from diffugen_generator.labeling.attention.capture import sizes_of
from diffugen_generator.labeling.attention.posthoc import weights_of
from diffugen_generator.labeling.attention.refinement import ranged, refined
from diffugen_generator.labeling.attention.summing import Summed, summing
from diffugen_generator.labeling.attention.word_maps import evidence_of, token_columns
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.words import Vocabulary, mentions


class InlineAttention:
    """Watches the samplings of one call of `Drawer.sample`, and has the evidence of each image afterwards."""

    def __init__(self, components: Components, vocabulary: Vocabulary, *, refine: bool) -> None:
        """Read the words of `vocabulary`; with `refine`, spread the maps along the last step's self-attention."""
        self._components = components
        self._vocabulary = vocabulary
        self._own_level = min(weights_of(components.unet)) if refine else None
        self.evidence: dict[int, AttentionMaps] = {}
        """By the orders' places in the call."""

    @contextmanager
    def observing(self, sampling: Sampling) -> Iterator[None]:
        """Read the attention of one batch while it is drawn."""
        parts = self._components
        read = [parts.tokenizer.read(each.prompt) for each in sampling.requests]
        named = [mentions(plain(each.prompt), self._vocabulary.called(each.words)) for each in sampling.requests]
        columns, groups = token_columns(read, named, sampling.tokens)
        with summing(
            parts.unet,
            columns=columns.to(parts.device),
            size=sampling.size,
            guided=sampling.guided,
            own_level=self._own_level,
            passes=sampling.passes,
        ) as summed:
            yield
        if not summed.by_layer:
            raise SpecError("UnsupportedModel", f"the UNet of {parts.model.uri} has no cross-attention to label by.")
        maps = summed.maps()  # [b, columns, h, w]
        words = torch.einsum("bmc,bchw->bmhw", groups.to(maps.device), maps)
        spread = self._spread(words, summed, sampling.size).cpu()
        for row, place in enumerate(sampling.places):
            self.evidence[place] = evidence_of(self._vocabulary, named[row], spread[row])

    def _spread(self, maps: torch.Tensor, summed: Summed, size: tuple[int, int]) -> torch.Tensor:
        """Bring maps [b, mentions, h, w] to 0..1, refined where that is asked for and there is self-attention."""
        if self._own_level is None or not summed.own:
            return ranged(maps)
        smaller = functional.interpolate(maps, size=sizes_of(*size)[self._own_level], mode="area")
        return refined(smaller, list(summed.own.values()))
