"""Converts images to a model's latents, with the scale of its UNet's input, and back.

Some autoencoders overflow in fp16. After the first overflow a copy in fp32 takes over.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from diffugen_generator.families.finite import check_finite

_IN_FP32: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""The copies in fp32 of autoencoders that overflowed."""
_LOCK = Lock()

log = logging.getLogger(__name__)


@torch.inference_mode()
def encode_images(vae: Any, device: torch.device, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """Encode images [height, width, 3] of one size as scaled latents [b, c, h, w]: the mode, so nothing is random."""
    levels = torch.from_numpy(np.stack(images)).to(device)  # [b, height, width, 3]
    scaled = (levels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(memory_format=torch.channels_last)
    latents = _finite(vae, lambda net: net.encode(scaled.to(net.dtype)).latent_dist.mode(), "the latents of images")
    scale, shift = latent_range(vae, latents)
    return (latents - shift) * scale


@torch.inference_mode()
def decode(vae: Any, latents: Sequence[torch.Tensor]) -> list[NDArray[np.uint8]]:
    """Decode scaled latents [c, h, w] of one size to images [height, width, 3], sRGB."""
    stacked = torch.stack(list(latents)).to(memory_format=torch.channels_last)  # [b, c, h, w]
    scale, shift = latent_range(vae, stacked)
    unscaled = stacked / scale + shift
    decoded = _finite(vae, lambda net: net.decode(unscaled.to(net.dtype), return_dict=False)[0], "the decoded images")
    levels = (decoded / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).contiguous().cpu().numpy())


def _finite(vae: Any, work: Callable[[Any], torch.Tensor], what: str) -> torch.Tensor:
    """Return `work(vae)` in fp32; if it overflows, that of a copy in fp32, which is used from then on.

    Raises `SpecError` naming `run.dtype` if it is not finite in fp32 either.
    """
    network = _IN_FP32.get(vae, vae)
    values = work(network).float()
    if network.dtype != torch.float32 and not bool(torch.isfinite(values).all()):
        network = _in_fp32(vae)
        values = work(network).float()
    check_finite(values, what, network.dtype)
    return values


def _in_fp32(vae: Any) -> Any:
    with _LOCK:  # batches of small models run in parallel
        if vae not in _IN_FP32:
            log.warning("the autoencoder overflows in %s; it runs in float32 from now on", vae.dtype)
            _IN_FP32[vae] = copy.deepcopy(vae).to(torch.float32)
        return _IN_FP32[vae]


def latent_range(vae: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and shift [1, c or 1, 1, 1] that give a VAE's latents unit variance: (z - shift) * scale."""

    def each(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, device=like.device, dtype=like.dtype).reshape(1, -1, 1, 1)

    config = vae.config
    scale, shift = each([config.scaling_factor]), each([config.shift_factor or 0.0])
    if config.latents_mean is not None and config.latents_std is not None:
        return scale / each(config.latents_std), each(config.latents_mean)
    return scale, shift
