"""How sampling starts, and which parts of the source image it keeps.

Without a mask, the source image is noised to a middle timestep and denoised from there (SDEdit, Meng et al. 2022). With
a mask, an ordinary network gets the source's latents, with the noise of the step, outside the mask at every step
(RePaint, Lugmayr et al. 2022, without its resampling; as diffusers does). A network that was made for inpainting gets
the mask and the masked image (`surroundings`) as additional channels (Rombach et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from diffugen_generator.diffusion.masks import SourceImage
from diffugen_generator.families.model import DiffusionModel, Sampler, first_index


class DenoisePath:
    """One batch's path from noise to images, with text only."""

    surroundings: torch.Tensor | None = None
    """[b, channels, h, w] for a network that was made for inpainting."""

    def __init__(self, sampler: Sampler, noise: torch.Tensor) -> None:
        """Start from `noise` [b, c, h, w]; the sampler's steps are already set."""
        self.timesteps = sampler.timesteps
        self.start = sampler.start(noise)
        """[b, c, h, w] in fp32."""

    def kept(self, latents: torch.Tensor, step: int) -> torch.Tensor:
        """Return latents [b, c, h, w] after step number `step`, with the kept parts of the source put back."""
        return latents


class Img2ImgPath(DenoisePath):
    """One batch's path from source images to images."""

    def __init__(
        self, model: DiffusionModel, sources: Sequence[SourceImage], noise: torch.Tensor, *, steps: int, strength: float
    ) -> None:
        """Start from `sources`, one for each row of `noise` [b, c, h, w]; `steps` are already set."""
        sampler = model.sampler
        super().__init__(sampler, noise)
        self._sampler = sampler
        self._noise = noise
        self._latents = model.encode_images([source.image for source in sources])  # [b, c, h, w]
        self._mask = _latent_mask(sources, self._latents)  # [b, 1, h, w] or None
        if self._mask is not None and model.inpaints:
            masks = [source.mask > 0 for source in sources if source.mask is not None]
            self.surroundings = model.surroundings([source.image for source in sources], masks, self._mask)
        begin = first_index(steps, strength, sampler.order)
        self.timesteps = self.timesteps[begin:]
        sampler.begin_at(begin)
        if strength < 1 or self._mask is None:  # else the result keeps nothing of the old object
            self.start = sampler.noised(self._latents, noise, self.timesteps[0])

    def kept(self, latents: torch.Tensor, step: int) -> torch.Tensor:
        """Return the latents, with the source's own latents outside the mask."""
        if self._mask is None or self.surroundings is not None:
            return latents
        last = step + 1 == len(self.timesteps)
        known = self._latents if last else self._sampler.noised(self._latents, self._noise, self.timesteps[step + 1])
        return torch.where(self._mask, latents, known.to(latents.dtype))


def _latent_mask(sources: Sequence[SourceImage], latents: torch.Tensor) -> torch.Tensor | None:
    """Return which latent cells are drawn [b, 1, h, w]: those with a masked pixel; None if all are drawn."""
    masks = [source.mask for source in sources if source.mask is not None]
    if len(masks) < len(sources):
        return None
    masked = torch.from_numpy(np.stack([mask > 0 for mask in masks]))[:, None].float()  # [b, 1, height, width]
    size = (int(latents.shape[2]), int(latents.shape[3]))
    return functional.adaptive_max_pool2d(masked, size).bool().to(latents.device)
