"""Images to draw from: where sampling begins, what is known on the way, and what stays as it was.

Whole images are noised to a part of the way and drawn on from there (SDEdit, Meng et al. 2022). Within a mask, a
UNet of the ordinary kind is shown at every step the source's own latents, noised as far, wherever nothing is to be
drawn (RePaint, Lugmayr et al. 2022, without its resampling; as diffusers does); a UNet that was made for inpainting is
given the mask and what is around it as further channels (Rombach et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from diffugen_generator.diffusion.components import Components
from diffugen_generator.diffusion.latents import encode_images
from diffugen_generator.diffusion.masks import SourceImage

GREY = 128
"""What a UNet made for inpainting is shown in place of what it is to draw: 0 in -1..1."""


class DenoisePath:
    """One batch's way from noise to images of text alone."""

    def __init__(self, scheduler: Any, noise: torch.Tensor) -> None:
        """Begin with `noise` [b, c, h, w]; the scheduler's steps are set already."""
        self.timesteps: torch.Tensor = scheduler.timesteps
        self.start: torch.Tensor = noise * scheduler.init_noise_sigma
        """[b, c, h, w] in fp32."""

    def shown(self, latents: torch.Tensor) -> torch.Tensor:
        """Return what the UNet is given for latents [b or 2b, c, h, w]: them, and what else it takes."""
        return latents

    def kept(self, latents: torch.Tensor, place: int) -> torch.Tensor:
        """Return latents [b, c, h, w] after step number `place`, with what is known in them."""
        return latents


class Img2ImgPath(DenoisePath):
    """One batch's way from images to images."""

    def __init__(
        self,
        components: Components,
        sources: Sequence[SourceImage],
        noise: torch.Tensor,
        *,
        steps: int,
        strength: float,
    ) -> None:
        """Begin with `sources`, one for each row of `noise` [b, c, h, w]; `steps` are set already."""
        self._scheduler = components.scheduler
        self._noise = noise
        self._latents = encode_images(components, [source.image for source in sources])  # [b, c, h, w]
        self._mask = _latent_mask(sources, self._latents)  # [b, 1, h, w] or None
        self._extra = self._channels(components, sources)
        left = max(1, round(steps * strength))
        begin = (steps - left) * int(getattr(self._scheduler, "order", 1))
        self.timesteps = self._scheduler.timesteps[begin:]
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(begin)
        if strength == 1 and self._mask is not None:  # nothing of the old object is left
            self.start = noise * self._scheduler.init_noise_sigma
        else:
            self.start = self._noised(self.timesteps[0])

    def shown(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents, and for a UNet made for inpainting the mask and what is around it."""
        if self._extra is None:
            return latents
        return torch.cat([latents, self._extra.repeat(len(latents) // len(self._extra), 1, 1, 1)], dim=1)

    def kept(self, latents: torch.Tensor, place: int) -> torch.Tensor:
        """Return the latents, the source's own where nothing is to be drawn."""
        if self._mask is None or self._extra is not None:
            return latents
        last = place + 1 == len(self.timesteps)
        known = self._latents if last else self._noised(self.timesteps[place + 1])
        return torch.where(self._mask, latents, known.to(latents.dtype))

    def _noised(self, t: torch.Tensor) -> torch.Tensor:
        noised: torch.Tensor = self._scheduler.add_noise(self._latents, self._noise, t.expand(len(self._noise)))
        return noised

    def _channels(self, components: Components, sources: Sequence[SourceImage]) -> torch.Tensor | None:
        """Return mask and surroundings [b, 1 + c, h, w]; None for a UNet that takes latents alone."""
        if self._mask is None or not components.inpaints:
            return None
        around = [_without(source) for source in sources]
        return torch.cat([self._mask.to(self._latents.dtype), encode_images(components, around)], dim=1)


def blank_channels(components: Components, latents: torch.Tensor) -> torch.Tensor:
    """Return latents [b, c, h, w] as the UNet takes them where nothing around them is known."""
    if not components.inpaints:
        return latents
    side = components.reduction
    grey = np.full((int(latents.shape[2]) * side, int(latents.shape[3]) * side, 3), GREY, np.uint8)
    around = encode_images(components, [grey]).to(latents.dtype).expand(len(latents), -1, -1, -1)
    return torch.cat([latents, torch.ones_like(latents[:, :1]), around], dim=1)


def _without(source: SourceImage) -> NDArray[np.uint8]:
    """Return an image, grey where it is to be drawn."""
    if source.mask is None:
        return np.full_like(source.image, GREY)
    return np.where(source.mask[:, :, None] > 0, np.uint8(GREY), source.image)


def _latent_mask(sources: Sequence[SourceImage], latents: torch.Tensor) -> torch.Tensor | None:
    """Return which latent cells are drawn [b, 1, h, w]: those with a covered pixel; None where all are."""
    masks = [source.mask for source in sources if source.mask is not None]
    if len(masks) < len(sources):
        return None
    covered = torch.from_numpy(np.stack([mask > 0 for mask in masks]))[:, None].float()  # [b, 1, height, width]
    size = (int(latents.shape[2]), int(latents.shape[3]))
    return functional.adaptive_max_pool2d(covered, size).bool().to(latents.device)
