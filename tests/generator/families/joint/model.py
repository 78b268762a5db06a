"""The model of the joint family: text and patches attend to each other, and the model predicts a velocity.

Latents are the pixels themselves, 4 x 4 pixels per cell. At time s in 0..1 they are (1 - s) x + s noise (flow matching,
Lipman et al. 2023), and the network predicts noise - x.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch.nn import functional

from diffugen_api.prompt_weights import Prompt, plain
from diffugen_generator.families.folder import ModelFolder, settings_of
from diffugen_generator.families.fused_attention import attended
from diffugen_generator.families.model import (
    EQUAL_HEADS,
    Conditioning,
    EncodedText,
    HeadWeights,
    Predictor,
    SelfAttention,
)
from diffugen_generator.families.prompts import NO_PIECE, TokenizedPrompt
from tests.generator.families.joint.config import LIMIT

CELL = 4
CHANNELS = 3 * CELL * CELL
HEADS = 2
TRAINING_STEPS = 1000

Observer = Callable[["JointLayer", torch.Tensor, torch.Tensor], None]


class JointLayer(torch.nn.Module):
    """Attention of text and patches together."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (torch.nn.Linear(width, width) for _ in range(3))
        self.observer: Observer | None = None

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens [b, text + cells, width] after attention."""
        query, key, value = (
            each(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in (self.to_q, self.to_k, self.to_v)
        )
        if self.observer is not None:
            self.observer(self, query, key)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return tokens + mixed.transpose(1, 2).flatten(2)


class JointTransformer(torch.nn.Module):
    """Two joint layers between two projections."""

    def __init__(self, width: int, words: int) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(words, width)
        self.into = torch.nn.Linear(CHANNELS, width)
        self.layers = torch.nn.ModuleList(JointLayer(width) for _ in range(2))
        self.out = torch.nn.Linear(width, CHANNELS)

    def forward(self, latents: torch.Tensor, states: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Return the velocity [n, c, h, w]."""
        cells = self.into(latents.flatten(2).transpose(1, 2)) + time  # [n, cells, width]
        tokens = torch.cat([states, cells], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        velocity: torch.Tensor = self.out(tokens[:, states.shape[1] :]).transpose(1, 2).reshape(latents.shape)
        return velocity


@dataclass
class FlowSampler:
    """Euler steps from time 1 to 0."""

    device: torch.device
    name: str = "FlowSampler"
    order: int = 1
    timesteps: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    _next: dict[float, float] = field(default_factory=dict)

    def set_steps(self, steps: int, size: tuple[int, int]) -> None:
        """Set the steps."""
        times = [float(each) for each in torch.linspace(TRAINING_STEPS, 0, steps + 1)]
        self.timesteps = torch.tensor(times[:-1], device=self.device)
        self._next = dict(pairwise(times))

    def begin_at(self, index: int) -> None:
        """Do nothing: a step depends on its time alone."""

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        """Return the noise."""
        return noise

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the mix at time `t`."""
        share = t / TRAINING_STEPS
        return (1 - share) * latents + share * noise

    def scaled(self, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the latents."""
        return latents

    def step(
        self, predicted: torch.Tensor, t: torch.Tensor, latents: torch.Tensor, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        """Take one step along the velocity."""
        return latents + (self._next[float(t)] - float(t)) / TRAINING_STEPS * predicted


class JointReading:
    """Attention of patches to text, summed over layers and passes."""

    def __init__(self, columns: torch.Tensor, size: tuple[int, int], *, self_attention: bool) -> None:
        self._columns, self._size, self._keep = columns, size, self_attention
        self._sum: torch.Tensor | None = None
        self._own: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def observe(self, layer: JointLayer, query: torch.Tensor, key: torch.Tensor) -> None:
        """Add the attention of the last b rows."""
        rows, texts = len(self._columns), self._columns.shape[1]
        query, key = query[-rows:, :, texts:], key[-rows:]
        values = functional.pad(self._columns, (0, 0, 0, key.shape[2] - texts))  # [b, text + cells, columns]
        seen = attended(query, key, values)
        self._sum = seen if self._sum is None else self._sum + seen
        if self._keep:
            self._own[id(layer)] = (query, key[:, :, texts:])

    def maps(self) -> torch.Tensor:
        """Return the maps [b, columns, h, w]."""
        assert self._sum is not None
        return self._sum.transpose(1, 2).unflatten(2, self._size)

    def self_attention(self) -> tuple[tuple[int, int], SelfAttention]:
        """Return the layers of the last pass."""
        return self._size, list(self._own.values())


@dataclass
class JointAttention:
    """Reads the joint layers."""

    network: JointTransformer

    @contextmanager
    def _reading(self, columns: torch.Tensor, size: tuple[int, int], *, self_attention: bool) -> Iterator[JointReading]:
        reading = JointReading(columns, size, self_attention=self_attention)
        layers = [each for each in self.network.layers if isinstance(each, JointLayer)]
        try:
            for layer in layers:
                layer.observer = reading.observe
            yield reading
        finally:
            for layer in layers:
                layer.observer = None

    def one_pass(
        self,
        columns: torch.Tensor,
        size: tuple[int, int],
        *,
        self_attention: bool,
        heads: HeadWeights = EQUAL_HEADS,
    ) -> Any:
        """Read one pass."""
        return self._reading(columns, size, self_attention=self_attention)

    def all_passes(
        self,
        columns: torch.Tensor,
        size: tuple[int, int],
        *,
        guided: bool,
        passes: int,
        self_attention: bool,
        heads: HeadWeights = EQUAL_HEADS,
    ) -> Any:
        """Sum over all passes."""
        return self._reading(columns, size, self_attention=self_attention)


@dataclass(frozen=True)
class JointModel:
    """The family's model, loaded."""

    model: ModelFolder
    device: torch.device
    network: JointTransformer
    words: dict[str, int]
    sampler: FlowSampler
    inpaints: bool = False
    cell: int = CELL
    trained_side: int = 32
    reads_negative: bool = True
    zero_negative_embeds: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The type of the network's weights."""
        return self.network.into.weight.dtype

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(each.numel() for each in self.network.parameters())

    @property
    def attention(self) -> JointAttention:
        """Reads the joint layers."""
        return JointAttention(self.network)

    def compile_blocks(self) -> None:
        """Compile the joint layers."""
        for layer in self.network.layers:
            layer.compile(dynamic=False)

    def with_own_sampler(self) -> JointModel:
        """Return a copy with a new sampler."""
        return replace(self, sampler=FlowSampler(self.device))

    def read(self, prompt: Prompt) -> TokenizedPrompt:
        """Split at blanks; the first token is the start token."""
        found = list(re.finditer(r"\w+", plain(prompt)))[: LIMIT - 1]
        ids = [0, *(self.words.get(each.group().lower(), 1) for each in found)]
        spans = [(0, 0), *(each.span() for each in found)]
        missing = LIMIT - len(ids)
        return TokenizedPrompt(
            1,
            (*ids, *[0] * missing),
            (*[1] * len(ids), *[0] * missing),
            (*spans, *[(0, 0)] * missing),
            (NO_PIECE, *[0] * len(found), *[NO_PIECE] * missing),
        )

    @torch.inference_mode()
    def encode(self, texts: Sequence[Prompt]) -> list[EncodedText]:
        """Look the words up."""
        ids = torch.tensor([self.read(text).ids for text in texts], device=self.device)
        return [EncodedText(states, states.new_empty(0)) for states in self.network.words(ids)]

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (48, h, w)."""
        return CHANNELS, height // CELL, width // CELL

    def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Cut images into patches."""
        pixels = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        return functional.pixel_unshuffle(pixels, CELL)

    def decode(self, latents: Sequence[torch.Tensor]) -> list[NDArray[np.uint8]]:
        """Put patches together."""
        pixels = functional.pixel_shuffle(torch.stack(list(latents)), CELL)
        levels = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return list(levels.permute(0, 2, 3, 1).contiguous().cpu().numpy())

    def surroundings(
        self, images: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.bool_]], cells: torch.Tensor
    ) -> torch.Tensor:
        """Never called: `inpaints` is False."""
        raise NotImplementedError

    def predictor(
        self, conditioning: Conditioning, *, guidance: float | None = None, surroundings: torch.Tensor | None = None
    ) -> Predictor:
        """Return the velocity under `conditioning`."""
        return lambda latents, t: self.network(latents, conditioning.states, t / TRAINING_STEPS)

    def training_step(self, share: float) -> int:
        """Return a fraction of 1000."""
        return round(share * TRAINING_STEPS)

    def forward_noised(self, latents: torch.Tensor, noise: torch.Tensor, step: int) -> torch.Tensor:
        """Return the mix of image and noise."""
        return self.sampler.noised(latents, noise.to(latents), torch.tensor(step))

    def prediction_error(
        self, predicted: torch.Tensor, latents: torch.Tensor, noise: torch.Tensor, step: int
    ) -> torch.Tensor:
        """Return the error of the velocity."""
        return (predicted - (noise - latents)).square().mean(dim=(1, 2, 3))


def load(model: ModelFolder, device: torch.device) -> JointModel:
    """Load the weights."""
    words: dict[str, int] = settings_of(model.path / "words" / "words.json")
    network = JointTransformer(int(settings_of(model.path / "transformer" / "config.json")["width"]), len(words) + 2)
    network.load_state_dict(load_file(model.path / "transformer" / "model.safetensors"))
    network.eval().requires_grad_(False).to(device)
    return JointModel(model, device, network, words, FlowSampler(device))


def write_weights(folder: Path, width: int, words: int) -> None:
    """Write random weights, the same each time."""
    torch.manual_seed(3)
    save_file(JointTransformer(width, words + 2).state_dict(), folder / "model.safetensors")
