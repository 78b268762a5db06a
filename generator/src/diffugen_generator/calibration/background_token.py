"""Trains a token for what is no object: in the softmax of attention it takes the place of all marks of a prompt.

Words keep the states that they have in their prompt, and compete with the token at each cell. A cell without an object
attends to the token, so the maps of the words become exact. The loss is one minus the soft intersection over union of
the map that labels with the mask. OVAM (Marcos-Manchón et al. 2024, arXiv 2403.14291) trains the tokens of the classes
too; a few images have too few colors and places for that.

Shapes: see the legend in `labeling.attention`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from diffugen_api.v1alpha1 import AttentionLabeling
from diffugen_api.words import Mention, Vocabulary, mentions
from diffugen_generator.diffusion.noise import seeded_noise
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.model import AttentionReading, DiffusionModel
from diffugen_generator.families.prompts import TokenizedPrompt
from diffugen_generator.labeling.attention.posthoc import NOISE_AT
from diffugen_generator.labeling.attention.refinement import spread
from diffugen_generator.labeling.attention.word_maps import BORDER, attribution_texts, mention_columns

STEPS: Final = 60
RATE: Final = 0.05
"""The first learning rate of Adam, in units of the mean size of the token's numbers; it falls to 0 along a cosine."""
_BATCH: Final = 8
"""Readings of one step, at most."""
_KEEP: Final = 0.03
"""The weight of the mean squared distance to the first token, in units of the token's mean square."""
_SHARPNESS: Final = 12.0
"""The slope at the border of the soft mask that is made of a map."""
_SALT: Final = 0x94D049BB133111EB


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of an annotated image."""

    named: Sequence[Mention]
    read: TokenizedPrompt
    states: torch.Tensor
    """[1, tokens, width]: the caption as the network reads it."""
    columns: torch.Tensor
    """[1, tokens, mentions]."""
    attention: AttentionReading
    masks: Mapping[str, torch.Tensor]
    """[height, width] in 0..1 for each annotated class, with four values a cell on each side."""


def reading_noise(latents: torch.Tensor, seed: int, step: int) -> torch.Tensor:
    """Return the standard normal noise for latents [1, c, h, w] of an annotated image at a timestep."""
    return seeded_noise(latents.shape[1:], [seed], _SALT + step)


class TokenTraining:
    """Trains the token for one model and one vocabulary."""

    def __init__(
        self, model: DiffusionModel, texts: TextStates, vocabulary: Vocabulary, attention: AttentionLabeling
    ) -> None:
        """Train for the maps that `attention` asks for."""
        self._model = model
        self._texts = texts
        self._vocabulary = vocabulary
        self._refine = attention.refine

    @torch.no_grad()
    def read(
        self, pixels: NDArray[np.uint8], caption: str, masks: Mapping[str, NDArray[np.bool_]], seed: int
    ) -> Reading:
        """Read an image [height, width, 3] with the masks [height, width] of its classes."""
        model = self._model
        latents = model.encode_images([pixels]).clone()  # a tensor of inference mode cannot be part of a loss
        states = self._texts.conditioning([caption])
        named, read = mentions(caption, self._vocabulary), model.read(caption)
        size = (int(latents.shape[2]), int(latents.shape[3]))
        step = model.training_step(NOISE_AT)
        noise = reading_noise(latents, seed, step)
        noised = model.forward_noised(latents, noise, step)
        with model.attention.queried_pass(size, self_attention=self._refine) as attention:
            model.predictor(states)(noised, torch.tensor(step, device=model.device))
        fine = (4 * size[0], 4 * size[1])
        return Reading(
            named,
            read,
            states.states.clone(),
            mention_columns([read], [named]),
            attention,
            {
                kind: functional.interpolate(torch.from_numpy(mask)[None, None].float(), size=fine, mode="area")[0, 0]
                for kind, mask in masks.items()
            },
        )

    def first(self, readings: Sequence[Reading]) -> torch.Tensor:
        """Return the token before the training [width]: the mean state of the start marks."""
        return torch.stack([each.states[0, 0].float() for each in readings]).mean(dim=0)

    def train(self, readings: Sequence[Reading]) -> torch.Tensor:
        """Return the token [width] that was trained on `readings`."""
        first = self.first(readings)
        scale = float(first.square().mean().sqrt())
        token = torch.nn.Parameter(first.clone())
        optimizer = torch.optim.Adam([token], lr=RATE * scale)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for step in range(STEPS):
            chosen = [readings[(step * _BATCH + number) % len(readings)] for number in range(_BATCH)]
            chosen = chosen[: len(readings)]
            loss = torch.stack([self._loss(each, token) for each in chosen]).mean()
            loss = loss + _KEEP * (token - first).square().mean() / scale**2
            (token.grad,) = torch.autograd.grad(loss, [token])
            optimizer.step()
            schedule.step()
        return token.detach()

    def maps(self, reading: Reading, token: torch.Tensor) -> torch.Tensor:
        """Return the maps [1, mentions, h, w] with this token, before they are spread."""
        texts = attribution_texts(reading.states, reading.columns, [reading.read], token)
        return reading.attention.attributed(*texts)

    def _loss(self, reading: Reading, token: torch.Tensor) -> torch.Tensor:
        maps = spread(self.maps(reading, token), reading.attention, refine=self._refine)  # [1, mentions, h, w]
        losses = []
        for kind, mask in reading.masks.items():
            own = [number for number, each in enumerate(reading.named) if each.name == kind and not each.background]
            joined = maps[:, own].amax(dim=1, keepdim=True)
            fine = functional.interpolate(joined, size=mask.shape, mode="bilinear", align_corners=False)[0, 0]
            soft = torch.sigmoid((fine - BORDER) * _SHARPNESS)
            truth = mask.to(soft)
            both = (soft * truth).sum()
            losses.append(1 - both / (soft + truth - soft * truth).sum())
        return torch.stack(losses).mean()
