"""One sample's image on its way from drawing to labeling, with what drawing leaves for the labels."""

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
    """The tensor [c, h, w] that the image was decoded from; None from the store, or where a source shows in it."""
    observed: AttentionMaps | None = None
    """The attention of all sampling steps, with `capture: inline`; None from the store."""
