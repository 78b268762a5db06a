"""Attention with a matrix of few columns as values. The matrix of all pairs of cells and tokens is never built.

Shapes: see the legend in `labeling.attention`.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def attended(
    query: torch.Tensor, key: torch.Tensor, values: torch.Tensor, known: torch.Tensor | None = None
) -> torch.Tensor:
    """Return mean over heads of softmax(q kᵀ / √d) v in fp32: [b, cells, columns]; arguments as `attended_by_head`."""
    return attended_by_head(query, key, values, known).mean(dim=1)


def attended_by_head(
    query: torch.Tensor, key: torch.Tensor, values: torch.Tensor, known: torch.Tensor | None = None
) -> torch.Tensor:
    """Return softmax(q kᵀ / √d) v in fp32, head by head: [b, heads, cells, columns].

    Args:
        query: [b, heads, cells, d].
        key: [b, heads, n, d].
        values: [b, n, columns].
        known: [b, n], True for the keys that take part; None for all.
    """
    query, key, values = query.float(), key.float(), values.float()
    width, columns = query.shape[-1], values.shape[-1]
    # The values get the width of the keys: with any other width, torch builds the whole matrix.
    padded = functional.pad(values, (0, -columns % width)).unsqueeze(1).expand(-1, query.shape[1], -1, -1)
    mask = None if known is None else known[:, None, None, :]
    parts = [
        functional.scaled_dot_product_attention(query, key, part, attn_mask=mask)
        for part in torch.split(padded, width, dim=-1)
    ]
    return torch.cat(parts, dim=-1)[..., :columns]
