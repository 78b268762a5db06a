"""Maps from all sampling steps, as in DAAM (Tang et al. 2023): attention is read while images are drawn.

The attention of a sampling is lost when the sampling ends. So an image that already exists is drawn once more from its
recipe, and only the evidence is kept.

Shapes: see the legend in `labeling.attention`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from diffugen_api.prompt_weights import plain
from diffugen_api.words import Vocabulary, mentions
from diffugen_generator.diffusion.drawing import Sampling
from diffugen_generator.families.model import EQUAL_HEADS, DiffusionModel, HeadWeights
from diffugen_generator.labeling.attention.refinement import spread
from diffugen_generator.labeling.attention.word_maps import evidence_of, recentred, token_columns
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps


class InlineAttention:
    """Observes the samplings of one call of `Drawer.sample`; afterwards it holds the evidence of each image."""

    def __init__(
        self,
        model: DiffusionModel,
        vocabulary: Vocabulary,
        *,
        refine: bool,
        heads: HeadWeights = EQUAL_HEADS,
        border: float | None = None,
    ) -> None:
        """Read maps for the words of `vocabulary`; with `refine`, spread them along the last step's self-attention.

        `heads` is how heads are joined and which steps are read; `border` is a calibrated threshold.
        """
        self._heads = heads
        self._border = border
        self._model = model
        self._vocabulary = vocabulary
        self._refine = refine
        self.evidence: dict[int, AttentionMaps] = {}
        """The evidence of each image, by the index of its request in the call."""

    @contextmanager
    def observing(self, sampling: Sampling) -> Iterator[None]:
        """Read the attention of one batch while it is drawn."""
        model = self._model
        read = [model.read(each.prompt) for each in sampling.requests]
        named = [mentions(plain(each.prompt), self._vocabulary.called(each.words)) for each in sampling.requests]
        columns, groups = token_columns(read, named, sampling.tokens)  # [b, tokens, columns], [b, mentions, columns]
        with model.attention.all_passes(
            columns.to(model.device),
            sampling.size,
            guided=sampling.guided,
            passes=sampling.passes,
            self_attention=self._refine,
            heads=self._heads,
        ) as reading:
            yield
        maps = reading.maps()  # [b, columns, h, w]
        words = torch.einsum("bmc,bchw->bmhw", groups.to(maps.device), maps)
        in_range = recentred(spread(words, reading, refine=self._refine), self._border).cpu()  # [b, mentions, h, w]
        for row, index in enumerate(sampling.indices):
            self.evidence[index] = evidence_of(self._vocabulary, named[row], in_range[row], model.dtype)
