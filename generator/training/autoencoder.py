"""The autoencoder of `builtin://shapes`: 64x64 images to 4x16x16 latents and back, then frozen."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from generator.training.ranks import average_gradients, run_on_ranks
from numpy.typing import NDArray
from torch.nn import functional

from generator.training import scenes


@dataclass(frozen=True)
class AutoencoderSettings:
    """How the autoencoder is trained."""

    samples: int = 80_000
    """Images that training uses in total, over all ranks."""
    batch: int = 4
    """Images per rank and step."""
    rate: float = 2e-3
    """Peak learning rate of AdamW: it rises for 100 steps and falls linearly to zero over the last 40 %."""
    kl_weight: float = 1e-6
    """Weight of the KL term per latent, against a reconstruction error in [-1, 1] averaged over pixels."""
    seed: int = 11
    ranks: int = 2
    """Processes of one thread each."""


def new_autoencoder() -> Any:  # diffusers is untyped
    """An untrained autoencoder of 0.18 M parameters.

    One normalisation group and a small initial posterior variance (log -6) let it learn flat images several
    times faster than eight groups and unit variance do.
    """
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 16, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        mid_block_add_attention=False,
        sample_size=scenes.SIZE,
        scaling_factor=1.0,
    )
    with torch.no_grad():
        model.quant_conv.weight[4:].zero_()
        model.quant_conv.bias[4:].fill_(-6.0)
    return model


def as_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 [n, h, w, 3] to float [n, 3, h, w] in [-1, 1], channels last in memory."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0).contiguous(
        memory_format=torch.channels_last
    )


def train_autoencoder(images_file: Path, target: Path, settings: AutoencoderSettings) -> None:
    """Train on `images_file` (npy, uint8 [n, 64, 64, 3]) and save the model to the folder `target`."""
    run_on_ranks(settings.ranks, _train, images_file, target, settings)


def _train(rank: int, images_file: Path, target: Path, settings: AutoencoderSettings) -> None:
    torch.manual_seed(settings.seed)
    model = new_autoencoder().to(memory_format=torch.channels_last)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=settings.rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    steps = settings.samples // (settings.batch * settings.ranks)
    images = np.load(images_file, mmap_mode="r")
    rng = np.random.default_rng([settings.seed, rank])
    torch.manual_seed(settings.seed * 1000 + rank)
    started, running = time.monotonic(), 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * min((step + 1) / 100, 1.0, (steps - step) / (0.4 * steps))
        picked = as_tensor(images[rng.integers(len(images), size=settings.batch)])
        posterior = model.encode(picked).latent_dist
        rebuilt = model.decode(posterior.sample()).sample
        error = functional.mse_loss(rebuilt, picked) + 0.2 * functional.l1_loss(rebuilt, picked)
        loss = error + settings.kl_weight * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        running += error.item()
        if rank == 0 and (step + 1) % 100 == 0:
            rate = (step + 1) / (time.monotonic() - started)
            left = (steps - step - 1) / rate / 60
            print(
                f"autoencoder {step + 1}/{steps} error {running / 100:.4f}"
                f" {rate * settings.batch * settings.ranks:.0f}/s {left:.1f} min left",
                flush=True,
            )
            running = 0.0
            if (step + 1) % 1000 == 0:
                model.save_pretrained(target)
    if rank == 0:
        model.save_pretrained(target)


@torch.no_grad()
def encode_all(model: Any, images: NDArray[np.uint8], *, batch: int = 64) -> torch.Tensor:
    """Posterior means [n, 4, 16, 16] of all `images`."""
    means = [
        model.encode(as_tensor(images[start : start + batch])).latent_dist.mean
        for start in range(0, len(images), batch)
        for start in range(0, len(images), batch)
    ]
    return torch.cat(means)


@torch.no_grad()
def standardise_latents(model: Any, means: torch.Tensor) -> None:
    """Change the 1x1 convolutions so that each latent channel has mean 0 and standard deviation 1.

    Stable Diffusion pipelines have a single scaling factor and no shift. So the change is made in the weights, and the
    images stay the same. A channel that the autoencoder does not use keeps its scale.
    """
    shift = means.mean(dim=(0, 2, 3))  # [4]
    scale = means.std(dim=(0, 2, 3))  # [4]
    scale = torch.where(scale < 0.1, 1.0, scale)
    model.quant_conv.weight[:4] /= scale[:, None, None, None]
    model.quant_conv.bias[:4] = (model.quant_conv.bias[:4] - shift) / scale
    model.quant_conv.bias[4:] -= 2.0 * scale.log()
    inner = model.post_quant_conv.weight
    model.post_quant_conv.bias += (inner[:, :, 0, 0] * shift).sum(dim=1)
    inner *= scale[None, :, None, None]
