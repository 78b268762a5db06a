"""Measures what a trained word is worth: what images show that are drawn with it, against the initializer.

The same number of images is drawn with each, with the same seeds. There are two measures. For `builtin://shapes`, the
color oracle counts the images that show exactly what the training images show. For other models, a CLIP model measures
how similar the images are to the training images (the image similarity of Gal et al. 2022, arXiv 2208.01618).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from diffugen_generator.builtin_shapes import oracle
from diffugen_generator.builtin_shapes.vocabulary import BACKGROUNDS, SIZE
from diffugen_generator.diffusion.drawing import DrawingSettings
from diffugen_generator.families.token_training import TokenModel
from diffugen_generator.inversion.images import TrainingImage
from diffugen_generator.inversion.samples import draw_samples
from diffugen_generator.inversion.settings import TrainingSettings

SHAPES: Final = "builtin://shapes"
"""The model whose images the oracle can read."""
COUNTED: Final = 32
"""Images that the oracle sees, with the word and with the initializer each."""
COMPARED: Final = 8
"""Images that CLIP sees, with the word and with the initializer each."""
_SALT: Final = 7000
"""Makes the seeds different from those of the sample images."""

Content = tuple[tuple[str, str], ...]
"""The color and the class of each object in an image, sorted."""


class ImageSimilarity(Protocol):
    """A model that compares images."""

    @property
    def uri(self) -> str:
        """Its URI, for the card."""
        ...

    def between(self, drawn: Sequence[NDArray[np.uint8]], examples: Sequence[NDArray[np.uint8]]) -> float:
        """Return the mean cosine, in -1..1, over all pairs of a drawn image and an example."""
        ...


def presence_of(
    model: TokenModel,
    images: Sequence[TrainingImage],
    settings: TrainingSettings,
    drawing: DrawingSettings,
    similarity: ImageSimilarity | None = None,
) -> dict[str, Any]:
    """Return the measure's name and its figures for the word and for the initializer, as JSON data for the card.

    `measure` is `oracle` (a share of images), `clip` (a mean cosine), or None with the `reason`.
    """
    examples = [image.pixels for image in images]
    if model.taught.model.uri == SHAPES:
        wanted = common_content(examples)
        if wanted:
            sentences = [f"a {{}} on {background}" for background in BACKGROUNDS]
            found = [
                float(np.mean([content_of(image) == wanted for image in drawn]))
                for drawn in _drawn(model, settings, drawing, sentences, COUNTED)
            ]
            return _row("oracle", found, COUNTED) | {"of": [" ".join(each) for each in wanted]}
        if similarity is None:
            return _unmeasured("the oracle of builtin://shapes sees no object that most training images show.")
    if similarity is None:
        return _unmeasured(
            "only images of builtin://shapes are measured without a CLIP model; give one: "
            "spec.quality.clipScore.model, or the option --clip."
        )
    sentences = [text.replace(settings.token, "{}") for text in settings.sentences()]
    found = [similarity.between(drawn, examples) for drawn in _drawn(model, settings, drawing, sentences, COMPARED)]
    return _row("clip", found, COMPARED) | {"model": similarity.uri}


def content_of(image: NDArray[np.uint8]) -> Content:
    """Return the objects that the oracle sees in an image [height, width, 3] of any size."""
    if image.shape[:2] != (SIZE, SIZE):
        image = np.asarray(cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.uint8)
    return tuple(sorted((each.color, oracle.outline_of(each.mask)) for each in oracle.objects_of(image)))


def common_content(images: Sequence[NDArray[np.uint8]]) -> Content:
    """Return the objects that more than half of the images show exactly; empty if there are none."""
    ((most, count),) = Counter(content_of(image) for image in images).most_common(1)
    return most if 2 * count > len(images) else ()


def _drawn(
    model: TokenModel, settings: TrainingSettings, drawing: DrawingSettings, sentences: Sequence[str], count: int
) -> list[list[NDArray[np.uint8]]]:
    """Return `count` images with the word and as many with the initializer; `sentences` have `{}` for it."""
    seed = settings.seed + _SALT
    return [
        draw_samples(
            model.taught, [sentences[each % len(sentences)].replace("{}", word) for each in range(count)], drawing,
            seed=seed,
        )
        for word in (settings.token, settings.initializer)
    ]  # fmt: skip


def _row(measure: str, found: Sequence[float], images: int) -> dict[str, Any]:
    token, initializer = (round(each, 4) for each in found)
    return {"measure": measure, "token": token, "initializer": initializer, "images": images}


def _unmeasured(reason: str) -> dict[str, Any]:
    return {"measure": None, "token": None, "initializer": None, "images": 0, "reason": reason}
