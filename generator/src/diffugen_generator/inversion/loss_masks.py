"""Scales masks of images to the grid of their latents, where they weight the loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional


def masks_of(masks: Sequence[NDArray[np.bool_] | None], cells: tuple[int, int]) -> torch.Tensor | None:
    """Return masks [height, width] on the grid (h, w) of latents, [n, 1, h, w] in 0..1; None where none is given."""
    if all(mask is None for mask in masks):
        return None
    given = [np.ones(cells, np.float32) if mask is None else mask.astype(np.float32) for mask in masks]
    shrunk = [functional.adaptive_avg_pool2d(torch.from_numpy(mask)[None], cells) for mask in given]  # [1, h, w]
    return torch.stack(shrunk)
