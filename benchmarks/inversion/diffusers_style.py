"""Training in the way of diffusers' own example, for comparison: examples/textual_inversion/textual_inversion.py.

It does the same as that program: every step encodes its images with the autoencoder, AdamW updates the whole embedding
table, and then all rows except the new one are restored from a copy.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from transformers import CLIPTextModel


@dataclass
class StepTimes:
    """Elapsed seconds of each step and its parts, and CPU seconds; elapsed times depend on the machine's other load."""

    steps: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)

    def add(self, part: str, seconds: float) -> None:
        """Add the seconds of a part of a step."""
        self.parts.setdefault(part, []).append(seconds)

    def row(self) -> dict[str, Any]:
        """Return the medians as JSON data."""
        return {
            "seconds_per_step": round(float(np.median(self.steps)), 4),
            "cpu_seconds_per_step": round(float(np.median(self.cpu)), 4) if self.cpu else None,
            "parts": {name: round(float(np.median(values)), 4) for name, values in self.parts.items()},
            "losses": [round(loss, 5) for loss in self.losses],
        }


@dataclass
class Networks:
    """A pipeline's networks, loaded as in the example program."""

    vae: Any
    unet: Any
    text_encoder: Any
    scheduler: Any

    @classmethod
    def load(cls, folder: str) -> Networks:
        """Load them from a pipeline's folder; all are frozen except the embedding table."""
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
        encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")
        for network in (vae, unet, encoder):
            network.requires_grad_(False)
        return cls(vae, unet, encoder, DDPMScheduler.from_pretrained(folder, subfolder="scheduler"))


def train(
    networks: Networks,
    images: Sequence[NDArray[np.uint8]],
    ids: torch.Tensor,
    *,
    initializer: int,
    vocabulary: int,
    steps: int,
    learning_rate: float,
    batch: int,
    seed: int,
) -> Iterator[StepTimes]:
    """Train one new row of the table for `steps` steps, and yield the times of all steps so far after each.

    `ids` [sentences, tokens] are the training sentences with the id `vocabulary` for the new word. Its row starts as a
    copy of the row `initializer`.
    """
    torch.manual_seed(seed)
    encoder = networks.text_encoder
    encoder.resize_token_embeddings(vocabulary + 1, mean_resizing=False)
    table = encoder.get_input_embeddings().weight
    with torch.no_grad():
        table[vocabulary] = table[initializer]
    table.requires_grad_(True)
    optimizer = torch.optim.AdamW([table], lr=learning_rate, weight_decay=1e-2)
    before = table.detach().clone()
    others = torch.ones(len(table), dtype=torch.bool)
    others[vocabulary] = False
    levels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    times = StepTimes()
    for _ in range(steps):
        began = last = time.perf_counter()
        cpu = time.process_time()

        def part(name: str) -> None:
            nonlocal last
            now = time.perf_counter()
            times.add(name, now - last)
            last = now

        rows = torch.randint(len(images), (batch,))
        with torch.no_grad():
            latents = networks.vae.encode(levels[rows]).latent_dist.sample() * networks.vae.config.scaling_factor
        part("autoencoder")
        noise = torch.randn_like(latents)
        at = torch.randint(networks.scheduler.config.num_train_timesteps, (batch,))
        noised = networks.scheduler.add_noise(latents, noise, at)
        states = encoder(ids[torch.randint(len(ids), (batch,))])[0]
        part("text encoder")
        predicted = networks.unet(noised, at, states).sample
        velocity = networks.scheduler.config.prediction_type == "v_prediction"
        target = networks.scheduler.get_velocity(latents, noise, at) if velocity else noise
        loss = torch.nn.functional.mse_loss(predicted, target)
        part("unet")
        loss.backward()
        part("backward")
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            table[others] = before[others]
        part("optimizer")
        times.steps.append(time.perf_counter() - began)
        times.cpu.append(time.process_time() - cpu)
        times.losses.append(loss.item())
        yield times
