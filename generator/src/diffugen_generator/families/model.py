"""What drawing and labeling ask of a loaded model, whatever its family.

Shapes: b rows of a batch; n = b, or 2b with guidance; c, h, w of the latents; `tokens` of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from diffugen_api.prompt_weights import Prompt
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.prompts import TokenizedPrompt

Predictor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""The network's prediction [n, c, h, w] in fp32 for latents [n, c, h, w] at a timestep (one for all, or one a row)."""

SelfAttention = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Queries and keys [b, heads, h * w, d] of each self-attention layer that was read."""


@dataclass(frozen=True, slots=True)
class EncodedText:
    """One text as the network reads it."""

    states: torch.Tensor
    """[tokens, width]: equally many tokens for each of the text's windows."""
    pooled: torch.Tensor
    """[width] of the text as a whole; [0] where the family has none."""


@dataclass(frozen=True, slots=True)
class Conditioning:
    """The texts of a batch, equally long."""

    states: torch.Tensor
    """[n, tokens, width]."""
    pooled: torch.Tensor
    """[n, width]."""


class Sampler(Protocol):
    """A scheduler; its state belongs to one batch at a time."""

    @property
    def name(self) -> str:
        """What messages call it: the class of the scheduler."""
        ...

    @property
    def timesteps(self) -> torch.Tensor:
        """The timesteps of the steps that were set, in order."""
        ...

    @property
    def order(self) -> int:
        """How many timesteps one step takes."""
        ...

    def set_steps(self, steps: int, size: tuple[int, int]) -> None:
        """Set the steps for latents of `size` (h, w); raise `ValueError` where they are not possible."""
        ...

    def begin_at(self, index: int) -> None:
        """Say that sampling begins with timestep number `index`."""
        ...

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        """Return standard normal noise [b, c, h, w] as the first step takes it."""
        ...

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return latents [b, c, h, w] with the noise of timestep `t`."""
        ...

    def scaled(self, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return latents [n, c, h, w] as the network takes them at timestep `t`."""
        ...

    def step(
        self, predicted: torch.Tensor, t: torch.Tensor, latents: torch.Tensor, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        """Return latents [b, c, h, w] one step on; noise that is added comes from each row's own generator."""
        ...


class AttentionReading(Protocol):
    """The attention that was read."""

    def maps(self) -> torch.Tensor:
        """Return the heat maps [b, columns, h, w]; raise `SpecError` where the model has no layer to read."""
        ...

    def self_attention(self) -> tuple[tuple[int, int], SelfAttention]:
        """Return the (h, w) and the layers along which maps can be spread; no layers where none was asked for."""
        ...


class AttentionReader(Protocol):
    """Reads attention while the network runs, without changing what it computes.

    `columns` [b, tokens, columns] are the weights with which a text's tokens make up each column that is read;
    `size` is the (h, w) of the latents.
    """

    def one_pass(
        self, columns: torch.Tensor, size: tuple[int, int], *, self_attention: bool
    ) -> AbstractContextManager[AttentionReading]:
        """Read the one pass of b rows inside the `with`."""
        ...

    def all_passes(
        self, columns: torch.Tensor, size: tuple[int, int], *, guided: bool, passes: int, self_attention: bool
    ) -> AbstractContextManager[AttentionReading]:
        """Sum over the `passes` inside the `with`: of the last b of 2b rows where `guided`, else of b rows.

        Self-attention is that of the last pass.
        """
        ...


class DiffusionModel(Protocol):
    """A model that is loaded and ready to draw."""

    @property
    def model(self) -> ModelFolder:
        """Where it was loaded from."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its networks are."""
        ...

    @property
    def parameters(self) -> int:
        """How many numbers the denoising network has learned."""
        ...

    @property
    def inpaints(self) -> bool:
        """Whether the network was made for inpainting: it gets a mask and the surroundings as input."""
        ...

    @property
    def cell(self) -> int:
        """Pixels on a side of one latent cell."""
        ...

    @property
    def trained_side(self) -> int:
        """The side in pixels of the square images that it was trained on."""
        ...

    @property
    def reads_negative(self) -> bool:
        """Whether guidance takes a second pass with the negative text; False where the scale is an input."""
        ...

    @property
    def zero_negative_embeds(self) -> bool:
        """Whether the absence of a negative text is zeros, and not the states of the empty text."""
        ...

    @property
    def sampler(self) -> Sampler:
        """The scheduler."""
        ...

    @property
    def attention(self) -> AttentionReader:
        """How a word's map comes out of the network."""
        ...

    def with_own_sampler(self) -> Self:
        """Return a model with the same networks and a sampler of its own."""
        ...

    def read(self, prompt: Prompt) -> TokenizedPrompt:
        """Return a prompt's tokens, in the order of the states that `encode` returns."""
        ...

    def encode(self, texts: Sequence[Prompt]) -> list[EncodedText]:
        """Return each text as the network reads it, its weights applied."""
        ...

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (c, h, w) of the latents of images of a size in pixels."""
        ...

    def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Turn images [height, width, 3] of one size into latents [b, c, h, w]: the mode, so without chance."""
        ...

    def decode(self, latents: Sequence[torch.Tensor]) -> list[NDArray[np.uint8]]:
        """Turn latents [c, h, w] of one size into images [height, width, 3], sRGB."""
        ...

    def surroundings(
        self, images: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.bool_]], cells: torch.Tensor
    ) -> torch.Tensor:
        """Return what a network made for inpainting gets besides the latents: [b, channels, h, w].

        `masks` [height, width] and `cells` [b, 1, h, w] are True where images are drawn anew.
        """
        ...

    def predictor(
        self, conditioning: Conditioning, *, guidance: float | None = None, surroundings: torch.Tensor | None = None
    ) -> Predictor:
        """Return the network's prediction under `conditioning` [n].

        `guidance` is for networks that read it as an input; without `surroundings`, one made for inpainting is told
        that everything is drawn.
        """
        ...

    def training_step(self, share: float) -> int:
        """Return the timestep at a share, in 0..1, of the training steps."""
        ...

    def forward_noised(self, latents: torch.Tensor, noise: torch.Tensor, step: int) -> torch.Tensor:
        """Return latents [b, c, h, w] with the noise of a training step."""
        ...

    def prediction_error(
        self, predicted: torch.Tensor, latents: torch.Tensor, noise: torch.Tensor, step: int
    ) -> torch.Tensor:
        """Return each row's mean squared error [b] of a prediction for latents that `forward_noised` noised."""
        ...
