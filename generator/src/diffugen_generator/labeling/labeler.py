"""The interface of all labelers: they get images and return evidence. Without torch.

Attention (`attention.posthoc`), detectors, CLIP and safety checkers each read an image and return what they found.
`labeling.decide` turns that evidence into labels, apart from the models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from diffugen_api.prompt_weights import Prompt


@dataclass(frozen=True, slots=True)
class LabelInput:
    """One image to label."""

    image: NDArray[np.uint8]
    """[height, width, 3] sRGB."""
    prompt: Prompt
    """The prompt of the image. Only the position of a piece is used here, not its weight."""
    seed: int
    """The sample's seed, in 0..2**63-1; labelers derive all noise that they add from it."""
    latents: Any = None
    """The scaled latents [c, h, w] from which the image was decoded, if they are still available; if not, the image is
    encoded."""
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Other names of the objects of a class in this prompt, besides the class's own words."""


class Evidence(Protocol):
    """What a model found in one image, in the form that the store keeps."""

    def dumps(self, sample_id: str = "") -> bytes:
        """Return the file of a sample: the same bytes for the same evidence."""
        ...


E_co = TypeVar("E_co", bound=Evidence, covariant=True)


class Labeler(Protocol[E_co]):
    """A model that reads images and returns evidence."""

    def look(self, seen: Sequence[LabelInput]) -> Sequence[E_co]:
        """Return the evidence of each image; an image's evidence does not depend on the other images."""
        ...
