"""Labels in the way of DAAM and LabelDiffusion, written for this benchmark from the paper's definition.

A word's heat map is the sum of its cross-attention over all heads, layers and sampling steps, each layer enlarged to
one size (Tang et al. 2023, https://arxiv.org/abs/2210.04885, equation 8). The size is 64 x 64, or 96 x 96 for models
whose images are not 512 x 512, as in the authors' program (castorini/daam, trace.py, `latent_hw`). As in that program,
one image is drawn at a time, and attention is computed with its whole matrix. Python loops extract a map for each token
and add it up for each head. The maps of every layer and head are kept until the image is done. Then the word's map is
cut by Otsu's threshold, eroded and dilated, as in LabelDiffusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from numpy.typing import NDArray
from torch.nn import functional

Key = tuple[int, int]
"""A layer's and a head's number."""


class HeatMaps:
    """The heat maps of one image; in the `with` block, the pipeline's UNet fills them."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet
        self.summed: dict[Key, torch.Tensor] = {}
        """[tokens, h, w] in fp32, summed over the steps."""
        blocks = [*unet.down_blocks, *unet.up_blocks]  # without the middle block, as in the paper
        modules = [module for block in blocks for name, module in block.named_modules() if name.endswith("attn2")]
        self.layers: list[Attention] = [module for module in modules if isinstance(module, Attention)]

    def __enter__(self) -> HeatMaps:
        self.former = [layer.processor for layer in self.layers]
        for number, layer in enumerate(self.layers):
            layer.set_processor(_Tracing(self, number))  # type: ignore[arg-type]  # any callable works
        return self

    def __exit__(self, *error: object) -> None:
        for layer, processor in zip(self.layers, self.former, strict=True):
            layer.set_processor(processor)

    def add(self, layer: int, weights: torch.Tensor, size: tuple[int, int]) -> None:
        """Add one layer's attention [2 * heads, cells, tokens], the unconditional half first."""
        of_tokens = [
            column.reshape(len(column), *size)[len(column) // 2 :].float()  # [heads, h, w]
            for column in weights.permute(2, 0, 1)
        ]
        of_heads = torch.stack(of_tokens, dim=1).contiguous()  # [heads, tokens, h, w]
        for head, heat in enumerate(of_heads):
            former = self.summed.get((layer, head))
            self.summed[layer, head] = heat if former is None else former + heat

    def of(self, tokens: Sequence[int], side: int) -> torch.Tensor:
        """Return the map [side, side] of a word that is at the positions `tokens` of the prompt."""
        grown = [
            functional.interpolate(heat.unsqueeze(1), size=(side, side), mode="bicubic").clamp_(min=0)
            for heat in self.summed.values()
        ]
        return torch.stack(grown).mean(dim=0)[list(tokens), 0].mean(dim=0)


class _Tracing:
    """An attention processor that keeps its attention weights."""

    def __init__(self, maps: HeatMaps, layer: int) -> None:
        self.maps = maps
        self.layer = layer

    def __call__(
        self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, *_: Any, **__: Any
    ) -> torch.Tensor:
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        weights = attn.get_attention_scores(query, key)  # [2 * heads, cells, tokens]
        side = int(weights.shape[1] ** 0.5)
        self.maps.add(self.layer, weights, (side, side))
        output = attn.batch_to_head_dim(torch.bmm(weights, value))
        return attn.to_out[1](attn.to_out[0](output))


def mask_of(heat: torch.Tensor, width: int, height: int) -> NDArray[np.uint8]:
    """Return the mask [height, width] of a heat map [h, w], in 0 and 255."""
    large = functional.interpolate(heat[None, None].float(), size=(height, width), mode="bicubic")[0, 0].cpu()
    levels = ((large - large.min()) / (large.max() - large.min() + 1e-8) * 255).to(torch.uint8).numpy()
    _, mask = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.dilate(cv2.erode(mask, kernel, iterations=10), kernel, iterations=7), np.uint8)
