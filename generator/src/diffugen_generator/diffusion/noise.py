"""Noise that is added to the latents of finished images; it depends only on the samples' seeds."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def seeded_noise(shape: Sequence[int], seeds: Sequence[int], salt: int) -> torch.Tensor:
    """Return standard normal noise [b, *shape] in fp32 on the CPU, each row from its seed.

    `salt` makes it different from the noise of drawing, which uses the same seeds in 0..2**63-1.
    """
    generators = [torch.Generator("cpu").manual_seed((seed + salt) % 2**63) for seed in seeds]
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])
