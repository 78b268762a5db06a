"""The settings that decide the result of a training. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

MOST_VECTORS: Final = 32
"""The most vectors of one word."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a word is trained."""

    token: str
    """The new word, such as <piano>."""
    initializer: str
    """Words of the model that the vectors start from."""
    vectors: int = 1
    """Number of vectors of the word, which is also its number of tokens in a prompt: 1 to 32."""
    learn: Literal["object", "style"] = "object"
    """The kind of the training sentences: about an object, or about a style."""
    templates: tuple[str, ...] = ()
    """Sentences with `{}` for the word, which replace those of `learn`."""
    steps: int = 2000
    """Updates of the vectors, at most."""
    learning_rate: float = 5e-3
    batch: int = 4
    """Images of one pass."""
    accumulate: int = 1
    """Passes of one update."""
    seed: int = 0
    """Noise, timesteps, images and sentences of every step are derived from it."""
    flip: bool = False
    """Whether images are mirrored at random."""
    width: int = 512
    """Size in pixels to which images are scaled."""
    height: int = 512
    patience: int = 8
    """Evaluations without improvement after which training stops; 0 never stops early."""

    def sentences(self) -> tuple[str, ...]:
        """Return the training sentences with the word in them."""
        given = self.templates or (OBJECT if self.learn == "object" else STYLE)
        return tuple(template.replace("{}", self.token) for template in given)


OBJECT: tuple[str, ...] = (
    "a photo of {}",
    "a photo of a {}",
    "a photo of the {}",
    "a photo of one {}",
    "a photo of my {}",
    "a picture of a {}",
    "a picture of the {}",
    "an image of a {}",
    "an image with the {}",
    "a close photo of a {}",
    "a photo of a {} from nearby",
    "a distant photo of a {}",
    "a sharp photo of a {}",
    "a bright photo of the {}",
    "a dark photo of the {}",
    "a small photo of a {}",
    "a {} in the middle of a photo",
    "a {} in front of a background",
    "a {} seen from the front",
    "this is a {}",
    "there is a {} here",
    "the {} in plain view",
    "a drawing of a {}",
    "a good view of the {}",
)
"""Sentences about an object."""

STYLE: tuple[str, ...] = (
    "a picture in the style of {}",
    "a painting in the style of {}",
    "a drawing in the style of {}",
    "a photo in the style of {}",
    "an image in {} style",
    "a scene in {} style",
    "a view painted as {}",
    "a detailed work in the style of {}",
    "a quick sketch in the style of {}",
    "a large painting in {} style",
    "a small painting in {} style",
    "a colorful picture in the style of {}",
    "a dark picture in the style of {}",
    "a bright picture in the style of {}",
    "a landscape in the style of {}",
    "a portrait in the style of {}",
    "a still life in the style of {}",
    "an illustration in {} style",
)
"""Sentences about a style."""
