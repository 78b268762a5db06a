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
    """One image to look at."""

    image: NDArray[np.uint8]
    """[height, width, 3] sRGB."""
    prompt: Prompt
    """As it was drawn; what a piece weighs is not asked here, only where it stands."""
    seed: int
    """The sample's seed, in 0..2**63-1; any noise added in looking derives from it."""
    latents: Any = None
    """What the image was drawn from, a tensor [c, h, w] scaled, where that is still at hand; the image is encoded
    where not."""
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What objects of a class are called in this prompt besides the class's own words."""


class Evidence(Protocol):
    """What a model saw in one image, as it is kept in the store."""

    def dumps(self, sample_id: str = "") -> bytes:
        """Return the file of a sample: the same bytes for the same evidence."""
        ...


E_co = TypeVar("E_co", bound=Evidence, covariant=True)


class Labeler(Protocol[E_co]):
    """A model that looks at images."""

    def look(self, seen: Sequence[LabelInput]) -> Sequence[E_co]:
        """Return what it sees in each image; an image's evidence does not depend on the others."""
        ...
