"""One pass of a UNet: its inputs besides the latents, and its prediction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from diffugen_generator.families.model import Conditioning
from diffugen_generator.families.placement import unet_layout
from diffugen_generator.families.unet.text_projections import TextProjections, keeping

if TYPE_CHECKING:
    from diffugen_generator.families.unet.components import Components

GRAY = 128
"""The gray level of the masked part in the input of a UNet made for inpainting: 0 in -1..1."""


class UNetPredictor:
    """Predicts with one batch's conditioning."""

    def __init__(
        self,
        components: Components,
        conditioning: Conditioning,
        *,
        guidance: float | None = None,
        surroundings: torch.Tensor | None = None,
    ) -> None:
        """Predict with `components`. Distilled UNets read `guidance`; UNets made for inpainting read `surroundings`."""
        self._components = components
        self._conditioning = conditioning
        self._surroundings = surroundings
        self._projections = TextProjections(conditioning.states)
        self._inputs: dict[str, Any] = {"encoder_hidden_states": conditioning.states}
        width = components.unet.config.time_cond_proj_dim
        if width is not None and guidance is not None:
            waves = _waves(guidance - 1, int(width)).to(conditioning.states)
            self._inputs["timestep_cond"] = waves.expand(len(conditioning.states), -1)

    def __call__(self, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the prediction [n, c, h, w] in fp32 for latents [n, c, h, w] at `t` (one, or one per row)."""
        parts = self._components
        if parts.is_sdxl and "added_cond_kwargs" not in self._inputs:
            self._inputs["added_cond_kwargs"] = self._added(latents)
        if parts.inpaints:
            if self._surroundings is None:
                self._surroundings = _nothing_known(parts, latents)
            rows = len(latents) // len(self._surroundings)
            latents = torch.cat([latents, self._surroundings.repeat(rows, 1, 1, 1).to(latents.dtype)], dim=1)
        latents = latents.to(parts.dtype, memory_format=unet_layout(parts.device))
        with keeping(self._projections):
            predicted: torch.Tensor = parts.unet(latents, t, **self._inputs, return_dict=False)[0]
        return predicted.float()

    def _added(self, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the pooled text and the size input: the size of the image, with no crop."""
        pooled = self._conditioning.pooled
        height, width = (int(side) * self._components.cell for side in latents.shape[2:])
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=pooled.dtype, device=pooled.device)
        return {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}


def _nothing_known(components: Components, latents: torch.Tensor) -> torch.Tensor:
    """Return mask and masked image [1, 1 + c, h, w] for the case that the whole image is drawn."""
    height, width = (int(side) * components.cell for side in latents.shape[2:])
    gray = np.full((height, width, 3), GRAY, np.uint8)
    everywhere = latents.new_ones((1, 1, *latents.shape[2:]), dtype=torch.bool)
    return components.surroundings([gray], [np.ones((height, width), np.bool_)], everywhere)


def _waves(value: float, width: int) -> torch.Tensor:
    """Return a number as sines and cosines [1, width]; distilled models read the guidance scale in this form.

    Vaswani et al. 2017, as in https://github.com/google-research/vdm (model_vdm.py, get_timestep_embedding).
    """
    half = width // 2
    phases = 1000 * value * torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
    return functional.pad(torch.cat([phases.sin(), phases.cos()]), (0, width % 2))[None]
