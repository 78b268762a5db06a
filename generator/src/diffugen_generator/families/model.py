"""The interface of a loaded model, which drawing and labeling use for every family.

Shapes: b is the rows of a batch; n is b, or 2b with guidance; c, h, w are those of the latents; `tokens` is the length
of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from diffugen_api.prompt_weights import Prompt
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.prompts import TokenizedPrompt

Predictor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Returns the prediction [n, c, h, w] in fp32 for latents [n, c, h, w] at a timestep (one for all, or one per row)."""

SelfAttention = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Queries and keys [b, heads, h * w, d] of each captured self-attention layer."""


@dataclass(frozen=True, slots=True)
class EncodedText:
    """One encoded text, as the network reads it."""

    states: torch.Tensor
    """[tokens, width]; each window of the text has the same number of tokens."""
    pooled: torch.Tensor
    """[width], the pooled state of the text; [0] if the family has none."""


@dataclass(frozen=True, slots=True)
class Conditioning:
    """The encoded texts of a batch, all of one length."""

    states: torch.Tensor
    """[n, tokens, width]."""
    pooled: torch.Tensor
    """[n, width]."""


def first_index(steps: int, strength: float, order: int) -> int:
    """Return the number of the first timestep that runs at a strength in 0..1; at least one step runs.

    `order` is the number of timesteps of one step.
    """
    return (steps - max(1, round(steps * strength))) * order


class Sampler(Protocol):
    """A scheduler; its state belongs to one batch at a time."""

    @property
    def name(self) -> str:
        """Its name in messages: the class of the scheduler."""
        ...

    @property
    def timesteps(self) -> torch.Tensor:
        """The timesteps of the steps that were set, in order."""
        ...

    @property
    def order(self) -> int:
        """The number of timesteps of one step."""
        ...

    def set_steps(self, steps: int, size: tuple[int, int]) -> None:
        """Set the steps for latents of `size` (h, w); raise `ValueError` if they are not possible."""
        ...

    def begin_at(self, index: int) -> None:
        """Let sampling start at timestep number `index`; raise `ValueError` if the steps cannot be run from there."""
        ...

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        """Return standard normal noise [b, c, h, w], scaled for the first step."""
        ...

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return latents [b, c, h, w] with the noise of timestep `t`."""
        ...

    def scaled(self, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return latents [n, c, h, w], scaled for the network at timestep `t`."""
        ...

    def step(
        self, predicted: torch.Tensor, t: torch.Tensor, latents: torch.Tensor, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        """Return latents [b, c, h, w] after one step; added noise comes from each row's own generator."""
        ...


@dataclass(frozen=True, slots=True)
class HeadWeights:
    """How the heads of attention layers are joined to one map."""

    by_agreement: bool = False
    """Whether a head counts, at each cell, by how much its output agrees with the sum over all heads; `one_pass`."""
    chosen: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The weight of each head, by the layer's name; layers that are absent do not count. Empty: all count the same.
    `all_passes`."""
    last: float = 1.0
    """The last share of the passes that is read, above 0 and at most 1; `all_passes`."""


EQUAL_HEADS = HeadWeights()
"""All heads count the same."""


class AttentionReading(Protocol):
    """The attention that an `AttentionReader` has read."""

    def maps(self) -> torch.Tensor:
        """Return the heat maps [b, columns, h, w]; raise `SpecError` if the model has no layer to read."""
        ...

    def attributed(self, texts: torch.Tensor, columns: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return the maps [b, columns, h, w] as if the network had read other texts; only of `queried_pass`.

        `texts` [b, n, width] are states as in `Conditioning`; `columns` [b, n, columns] has the weight of each; only
        those that are True in `known` [b, n] take part. Differentiable in `texts`, if the pass did not run in
        inference mode.
        """
        ...

    def by_head(self) -> dict[str, torch.Tensor]:
        """Return the map of each head, by the layer's name: [b, heads, columns, h, w]; only of `all_passes`."""
        ...

    def self_attention(self) -> tuple[tuple[int, int], SelfAttention]:
        """Return the (h, w) and the layers along which maps can be spread; no layers if none were requested."""
        ...


class AttentionReader(Protocol):
    """Reads attention while the network runs, without changing what it computes.

    `columns` [b, tokens, columns] has the weight of each token of the text in each column; `size` is the (h, w) of the
    latents.
    """

    def one_pass(
        self,
        columns: torch.Tensor,
        size: tuple[int, int],
        *,
        self_attention: bool,
        heads: HeadWeights = EQUAL_HEADS,
    ) -> AbstractContextManager[AttentionReading]:
        """Read the single pass of b rows inside the `with`, with the heads joined by `heads`."""
        ...

    def queried_pass(self, size: tuple[int, int], *, self_attention: bool) -> AbstractContextManager[AttentionReading]:
        """Keep the queries of the single pass inside the `with`, to read other texts afterwards: `attributed`."""
        ...

    def all_passes(
        self,
        columns: torch.Tensor,
        size: tuple[int, int],
        *,
        guided: bool,
        passes: int,
        self_attention: bool,
        heads: HeadWeights = EQUAL_HEADS,
    ) -> AbstractContextManager[AttentionReading]:
        """Sum over the `passes` inside the `with`: if `guided`, the last b of 2b rows, else the b rows.

        Self-attention is read only from the last pass.
        """
        ...


class DiffusionModel(Protocol):
    """A loaded model that can draw."""

    @property
    def model(self) -> ModelFolder:
        """The folder from which it was loaded."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of its networks."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The type of its networks' weights."""
        ...

    @property
    def parameters(self) -> int:
        """The number of parameters of the denoising network."""
        ...

    @property
    def inpaints(self) -> bool:
        """Whether the network was made for inpainting: it takes a mask and the masked image as extra input."""
        ...

    @property
    def cell(self) -> int:
        """The side of one latent cell in pixels."""
        ...

    @property
    def trained_side(self) -> int:
        """The side in pixels of the square images that it was trained on."""
        ...

    @property
    def reads_negative(self) -> bool:
        """Whether guidance takes a second pass with the negative text; False if the scale is an input."""
        ...

    @property
    def zero_negative_embeds(self) -> bool:
        """Whether a missing negative text is encoded as zeros, and not as the states of the empty text."""
        ...

    @property
    def sampler(self) -> Sampler:
        """The scheduler."""
        ...

    @property
    def attention(self) -> AttentionReader:
        """Reads the attention maps of words from the network."""
        ...

    def compile_blocks(self) -> None:
        """Compile the network's repeated blocks with `torch.compile`, for fixed shapes, when they first run."""
        ...

    def with_own_sampler(self) -> Self:
        """Return a model with the same networks and its own sampler."""
        ...

    def read(self, prompt: Prompt) -> TokenizedPrompt:
        """Return a prompt's tokens, in the order of the states that `encode` returns."""
        ...

    def encode(self, texts: Sequence[Prompt]) -> list[EncodedText]:
        """Return each text as the network reads it, with its weights applied."""
        ...

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (c, h, w) of the latents of images of `height` x `width` pixels."""
        ...

    def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Encode images [height, width, 3] of one size as latents [b, c, h, w]: the mode, so nothing is random."""
        ...

    def decode(self, latents: Sequence[torch.Tensor]) -> list[NDArray[np.uint8]]:
        """Decode latents [c, h, w] of one size to images [height, width, 3], sRGB."""
        ...

    def surroundings(
        self, images: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.bool_]], cells: torch.Tensor
    ) -> torch.Tensor:
        """Return the extra input of a network made for inpainting: [b, channels, h, w].

        `masks` [height, width] and `cells` [b, 1, h, w] are True where images are redrawn.
        """
        ...

    def predictor(
        self, conditioning: Conditioning, *, guidance: float | None = None, surroundings: torch.Tensor | None = None
    ) -> Predictor:
        """Return the function that predicts under `conditioning` [n].

        `guidance` is for networks that read it as an input. Without `surroundings`, a network made for inpainting gets
        a mask of the whole image.
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
        """Return each row's mean squared error [b] of a prediction for the noised latents of `forward_noised`."""
        ...
