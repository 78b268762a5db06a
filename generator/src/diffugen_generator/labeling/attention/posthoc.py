"""Maps of a finished image from one pass of the model that drew it: which cells attend to each word.

A little noise is added to the image's latents (t = 10 % of the training steps). The network runs once on them with the
image's prompt. The attention to the words of a class is that class's map. The cost is one pass (DiffSegmenter,
Wang et al. 2023; iSeg, Sun et al. 2024). An image that was just drawn still has its latents, and these are used,
because encoding costs more than the pass. An image from the store is encoded; the result is nearly the same.

Shapes: see the legend in `labeling.attention`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffugen_api.prompt_weights import plain, unweighted
from diffugen_api.words import Vocabulary, mentions
from diffugen_generator.diffusion.noise import seeded_noise
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.model import EQUAL_HEADS, DiffusionModel, HeadWeights
from diffugen_generator.labeling.attention.refinement import spread
from diffugen_generator.labeling.attention.word_maps import (
    attribution_texts,
    evidence_of,
    mention_columns,
    recentred,
    rescaled,
    with_all_words,
)
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.labeler import LabelInput

NOISE_AT = 0.1
"""Share of the training steps at which the image is read: t = 100 of 1000."""

_SALT = 0x9E3779B97F4A7C15
"""Makes this noise different from the noise of drawing, which uses the same seed."""


class PosthocAttention:
    """Reads finished images with one model on one device."""

    def __init__(
        self,
        model: DiffusionModel,
        texts: TextStates,
        vocabulary: Vocabulary,
        *,
        refine: bool,
        rescale: bool = False,
        heads: HeadWeights = EQUAL_HEADS,
        border: float | None = None,
        token: torch.Tensor | None = None,
    ) -> None:
        """Read maps for the words of `vocabulary`; with `refine`, spread them along self-attention.

        With `rescale`, maps are divided by the attention to all words; `heads` is how heads are joined; `border` is a
        calibrated threshold; `token` [width] is a calibrated token for what is no object.
        """
        self._token = token
        self._border = border
        self._rescale = rescale
        self._heads = heads
        self._model = model
        self._texts = texts
        self._vocabulary = vocabulary
        self._refine = refine

    @torch.inference_mode()
    def look(self, inputs: Sequence[LabelInput], *, batch: int | None = None) -> list[AttentionMaps]:
        """Return the evidence in images of one size; with `batch`, short lists are padded to that length.

        Images whose prompts take more windows of the text encoder are read in batches of their own.
        """
        alike: dict[int, list[int]] = {}
        for index, each in enumerate(inputs):
            alike.setdefault(self._texts.windows(unweighted(each.prompt)), []).append(index)
        found: dict[int, AttentionMaps] = {}
        for indices in alike.values():
            found.update(zip(indices, self._look_alike([inputs[index] for index in indices], batch), strict=True))
        return [found[index] for index in range(len(inputs))]

    def _look_alike(self, inputs: Sequence[LabelInput], batch: int | None) -> list[AttentionMaps]:
        """Read images whose prompts take the same number of windows."""
        padded = [*inputs, *[inputs[-1]] * (max(batch or 0, len(inputs)) - len(inputs))]
        model = self._model
        named = [mentions(plain(each.prompt), self._vocabulary.called(each.words)) for each in padded]
        latents = self.latents(padded)  # [b, c, h, w]
        noise = seeded_noise(latents.shape[1:], [each.seed for each in padded], _SALT)
        step = model.training_step(NOISE_AT)
        noised = model.forward_noised(latents, noise, step)
        read = [model.read(each.prompt) for each in padded]
        columns = mention_columns(read, named)  # [b, tokens, columns]
        if self._rescale:
            columns = with_all_words(columns, read)
        size = (int(latents.shape[2]), int(latents.shape[3]))
        texts = self._texts.conditioning([unweighted(each.prompt) for each in padded])
        predict = model.predictor(texts)
        columns = columns.to(model.device)
        reader = model.attention
        if self._token is not None:
            reading_pass = reader.queried_pass(size, self_attention=self._refine)
        elif self._heads.chosen:
            reading_pass = reader.all_passes(
                columns, size, guided=False, passes=1, self_attention=self._refine, heads=self._heads
            )
        else:
            reading_pass = reader.one_pass(columns, size, self_attention=self._refine, heads=self._heads)
        with reading_pass as reading:
            predict(noised, torch.tensor(step, device=model.device))
        if self._token is not None:
            maps = reading.attributed(*attribution_texts(texts.states, columns, read, self._token))
        else:
            maps = rescaled(reading.maps()) if self._rescale else reading.maps()  # [b, columns, h, w]
        maps = recentred(spread(maps, reading, refine=self._refine), self._border).cpu()
        return [evidence_of(self._vocabulary, named[i], maps[i], model.dtype) for i in range(len(inputs))]

    @torch.inference_mode()
    def latents(self, inputs: Sequence[LabelInput]) -> torch.Tensor:
        """Return the images' latents [b, c, h, w]; images without latents are encoded."""
        at_hand = {index: each.latents for index, each in enumerate(inputs) if each.latents is not None}
        missing = [index for index in range(len(inputs)) if index not in at_hand]
        if missing:
            encoded = self._model.encode_images([inputs[index].image for index in missing])
            at_hand.update(zip(missing, encoded, strict=True))
        return torch.stack([at_hand[index] for index in range(len(inputs))])
