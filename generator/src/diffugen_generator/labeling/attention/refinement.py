"""Spreads maps along self-attention: cells that attend to each other get similar values.

M ← A M is repeated, with A the self-attention of the same pass and M the words' maps (Dataset Diffusion, Nguyen et al.
2023). Between the rounds each map is scaled back to 0..1 (as in iSeg, Sun et al. 2024); without this the maps become
flat. A M is attention with M as values, so the cells x cells matrix of A is never built.

Shapes: see the legend in `labeling.attention`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from diffugen_generator.families.fused_attention import attended
from diffugen_generator.families.model import AttentionReading

ROUNDS = 2
"""How often A is applied, as in FA-Seg. Four, as in Dataset Diffusion, blurs the maps of the small built-in model."""


def spread(maps: torch.Tensor, reading: AttentionReading, *, refine: bool) -> torch.Tensor:
    """Return `maps` [b, columns, h, w] in 0..1; with `refine`, spread along the self-attention of `reading`."""
    if not refine:
        return ranged(maps)
    size, layers = reading.self_attention()
    if not layers:
        return ranged(maps)
    if tuple(maps.shape[2:]) != size:
        maps = functional.interpolate(maps, size=size, mode="area")
    return refined(maps, layers)


def refined(
    maps: torch.Tensor, layers: Sequence[tuple[torch.Tensor, torch.Tensor]], rounds: int = ROUNDS
) -> torch.Tensor:
    """Return `maps` [b, columns, h, w] spread along the mean self-attention of `layers`, each map in 0..1.

    `layers` are queries and keys [b, heads, h * w, d]; without layers, the maps are only scaled to 0..1.
    """
    values = ranged(maps).flatten(2).transpose(1, 2)  # [b, h * w, columns]
    for _ in range(rounds if layers else 0):
        spread = torch.stack([attended(query, key, values) for query, key in layers]).mean(dim=0)
        values = ranged(spread.transpose(1, 2)).transpose(1, 2)
    return values.transpose(1, 2).reshape(maps.shape)


def ranged(maps: torch.Tensor) -> torch.Tensor:
    """Scale each map [b, columns, ...] to 0..1 by its own least and greatest value; a flat map becomes 0."""
    flat = maps.flatten(2)
    least, greatest = flat.amin(dim=2, keepdim=True), flat.amax(dim=2, keepdim=True)
    scaled = (flat - least) / (greatest - least).clamp_min(1e-12)
    return scaled.reshape(maps.shape)
