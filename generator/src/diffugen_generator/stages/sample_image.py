"""One sample's image between drawing and labeling, with the data that drawing passes to labeling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps


@dataclass(frozen=True, slots=True, eq=False)
class SampleImage:
    """An image that was just drawn, or one from the store."""

    image: NDArray[np.uint8]
    """[height, width, 3] sRGB."""
    latents: Any = None
    """The latents [c, h, w] of the image; None for an image from the store, or if parts of a source were put back."""
    observed: AttentionMaps | None = None
    """The attention of all sampling steps, with `capture: inline`; None for an image from the store."""
