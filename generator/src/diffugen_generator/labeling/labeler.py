"""What all labellers have in common: they are shown pictures, and leave evidence. Without torch.

Attention (`attention.Looker`), detectors, CLIP and safety checkers each look at a picture and say what they saw; what
is made of it is decided apart, from what all of them left (`findings`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from diffugen_api.prompt_weights import Prompt


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture to look at."""

    picture: NDArray[np.uint8]
    """[height, width, 3] sRGB."""
    prompt: Prompt
    """As it was drawn; what a piece weighs is not asked here, only where it stands."""
    seed: int
    """The sample's seed, in 0..2**63-1; any noise added in looking derives from it."""
    latents: Any = None
    """What the picture was drawn from, a tensor [c, h, w] scaled, where that is still at hand; the picture is encoded
    where not."""
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What objects of a class are called in this prompt besides the class's own words."""


class Witness(Protocol):
    """What a model saw in one picture, as it is kept in the store."""

    def dumps(self) -> bytes:
        """Return a file: the same bytes for the same evidence."""
        ...


W_co = TypeVar("W_co", bound=Witness, covariant=True)


class Labeler(Protocol[W_co]):
    """A model that looks at pictures."""

    def look(self, seen: Sequence[Seen]) -> Sequence[W_co]:
        """Return what it sees in each picture; a picture's evidence does not depend on the others."""
        ...
