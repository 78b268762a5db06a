"""Spreading maps along self-attention: cells that attend to each other come to agree.

M ← A M, with A the self-attention of the same pass and M the words' maps, some times over (Dataset Diffusion,
Nguyen et al. 2023), each map brought back to 0..1 between the rounds (as iSeg does, Sun et al. 2024), without
which they level out. A M is attention with M as values, so the cells x cells matrix of A is never made.

Self-attention does not always part objects: a model may see two of them as one kind of thing, and the maps of both
their words then spread over both. What words tell apart must stay apart, so a picture in which that happens keeps the
maps that it had.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffugen_generator.labeling.capture import attended

ROUNDS = 2
"""Applications of A, as in FA-Seg; four, the exponent of Dataset Diffusion, blur the small built-in model."""

ALIKE, MORE_ALIKE = 0.7, 0.2
"""Correlation over the cells from which two words' maps are alike, and by how much it has grown where refinement made
them so. Between 0.3 and 0.1 and these, mean IoU differed by less than 0.01 on two builds of the small model, one of
which has such self-attention."""


def refined(
    maps: torch.Tensor,
    layers: Sequence[tuple[torch.Tensor, torch.Tensor]],
    rivals: torch.Tensor | None = None,
    rounds: int = ROUNDS,
) -> torch.Tensor:
    """Return `maps` [b, columns, h, w] spread along the mean self-attention of `layers`, each map in 0..1.

    Args:
        maps: [b, columns, h, w].
        layers: queries and keys [b, heads, h * w, d]; without any, the maps are only brought to 0..1.
        rivals: [b, columns, columns] of booleans; columns that name different things. A picture in which spreading
            makes two of them alike is not refined.
        rounds: how often A is applied.
    """
    before = ranged(maps)
    spread = _spread(before, layers, rounds)
    if rivals is None:
        return spread
    merged = _merged(before, spread, rivals.to(maps.device))
    return torch.where(merged[:, None, None, None], before, spread)


def _spread(maps: torch.Tensor, layers: Sequence[tuple[torch.Tensor, torch.Tensor]], rounds: int) -> torch.Tensor:
    values = maps.flatten(2).transpose(1, 2)  # [b, h * w, columns]
    for _ in range(rounds if layers else 0):
        spread = torch.stack([attended(query, key, values) for query, key in layers]).mean(dim=0)
        values = ranged(spread.transpose(1, 2)).transpose(1, 2)
    return values.transpose(1, 2).reshape(maps.shape)


def _merged(before: torch.Tensor, after: torch.Tensor, rivals: torch.Tensor) -> torch.Tensor:
    """Return for each picture [b] whether two rivals' maps are alike, and were less so before."""
    alike = _correlations(after)
    return ((alike > ALIKE) & (alike - _correlations(before) > MORE_ALIKE) & rivals).flatten(1).any(dim=1)


def _correlations(maps: torch.Tensor) -> torch.Tensor:
    """Return Pearson's correlation [b, columns, columns] of maps [b, columns, h, w]; 0 with a flat one."""
    centred = maps.flatten(2) - maps.flatten(2).mean(dim=2, keepdim=True)
    unit = centred / centred.norm(dim=2, keepdim=True).clamp_min(1e-12)
    correlations: torch.Tensor = unit @ unit.mT
    return correlations


def ranged(maps: torch.Tensor) -> torch.Tensor:
    """Bring each map [b, columns, ...] to 0..1 by its own least and greatest value; a flat one to 0."""
    flat = maps.flatten(2)
    least, greatest = flat.amin(dim=2, keepdim=True), flat.amax(dim=2, keepdim=True)
    scaled = (flat - least) / (greatest - least).clamp_min(1e-12)
    return scaled.reshape(maps.shape)
