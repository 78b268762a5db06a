"""The attention maps of one image: a map for each word that the prompt names, in the form that the store keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffugen_generator.labeling.evidence.npz import arrays_in, npz_of


@dataclass(frozen=True, slots=True)
class AttentionMaps:
    """Attention maps of one image, classes first, then background words."""

    classes: tuple[str, ...]
    """The classes that the prompt names, in the vocabulary's order."""
    background: tuple[str, ...]
    """The background words that the prompt names."""
    maps: NDArray[np.uint8]
    """[classes + background, h, w]; each map's own range of attention as 0..255, at the resolution of reading."""
    presence: tuple[float, ...] = ()
    """For each class, the share by which its words reduce the prediction error; empty if presence was not checked."""

    def dumps(self, sample_id: str = "") -> bytes:
        """Return an npz file: the same bytes for the same evidence of the same sample."""
        arrays: dict[str, Any] = {
            "classes": np.array(self.classes, dtype=np.str_),
            "background": np.array(self.background, dtype=np.str_),
            "maps": self.maps,
        }
        if self.presence:
            arrays["presence"] = np.array(self.presence, dtype=np.float32)
        return npz_of(arrays, sample_id)

    @classmethod
    def loads(cls, data: bytes, sample_id: str = "") -> AttentionMaps:
        """Read the npz file of a sample; raise `ValueError` if it is damaged or another sample's."""
        with arrays_in(data, "an evidence file", sample_id) as arrays:
            classes = tuple(str(name) for name in arrays["classes"])
            background = tuple(str(word) for word in arrays["background"])
            maps = arrays["maps"]
            presence = tuple(float(share) for share in arrays["presence"]) if "presence" in arrays else ()
        if maps.dtype != np.uint8 or maps.ndim != 3 or len(maps) != len(classes) + len(background):
            raise ValueError(f"not an evidence file: maps of shape {maps.shape} and type {maps.dtype}")
        if presence and len(presence) != len(classes):
            raise ValueError(f"not an evidence file: presence of {len(presence)} of {len(classes)} classes")
        if not all(math.isfinite(share) for share in presence):
            raise ValueError("not an evidence file: presence is not finite")
        return cls(classes, background, maps, presence)
