"""Converts images to a model's latents, with the scale of its UNet's input, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@torch.inference_mode()
def encode_images(vae: Any, device: torch.device, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """Encode images [height, width, 3] of one size as scaled latents [b, c, h, w]: the mode, so nothing is random."""
    levels = torch.from_numpy(np.stack(images)).to(device)  # [b, height, width, 3]
    scaled = (levels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(vae.dtype, memory_format=torch.channels_last)
    latents: torch.Tensor = vae.encode(scaled).latent_dist.mode().float()
    scale, shift = latent_range(vae, latents)
    return (latents - shift) * scale


@torch.inference_mode()
def decode(vae: Any, latents: Sequence[torch.Tensor]) -> list[NDArray[np.uint8]]:
    """Decode scaled latents [c, h, w] of one size to images [height, width, 3], sRGB."""
    stacked = torch.stack(list(latents)).to(memory_format=torch.channels_last)  # [b, c, h, w]
    scale, shift = latent_range(vae, stacked)
    decoded = vae.decode((stacked / scale + shift).to(vae.dtype), return_dict=False)[0].float()
    levels = (decoded / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).contiguous().cpu().numpy())


def latent_range(vae: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and shift [1, c or 1, 1, 1] that give a VAE's latents unit variance: (z - shift) * scale."""

    def each(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, device=like.device, dtype=like.dtype).reshape(1, -1, 1, 1)

    config = vae.config
    scale, shift = each([config.scaling_factor]), each([config.shift_factor or 0.0])
    if config.latents_mean is not None and config.latents_std is not None:
        return scale / each(config.latents_std), each(config.latents_mean)
    return scale, shift
