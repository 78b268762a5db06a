"""Whether an image is unsafe, by the safety checker of Stable Diffusion. Its margin is kept; no image is blackened.

The checker knows concepts as embeddings, each with its own threshold. A few concepts need special care: if an image is
near enough to one of them, the thresholds of all other concepts are a little stricter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional
from transformers import CLIPImageProcessor

from diffugen_generator.labeling.detectors.loading import load_model, load_part, unsupported
from diffugen_generator.labeling.evidence.scores import Margin
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.side_models import SideModel

_DIGITS = 3
"""The number of decimals to which diffusers rounds a value before it compares it with 0."""
_STRICTER = np.float32(0.01)
"""The value that special care adds to the margins."""


class SafetyChecker:
    """A safety checker on one device."""

    def __init__(self, side_model: SideModel, device: torch.device) -> None:
        """Load the checker; raise `SpecError` if it cannot be loaded."""
        self._model = load_model(StableDiffusionSafetyChecker, side_model, device)
        self._processor = load_part(CLIPImageProcessor, side_model)
        self._device = device
        side = self._model.config.vision_config.image_size
        if (made := dict(self._processor.crop_size)) != {"height": side, "width": side}:
            raise unsupported(
                side_model,
                f"its preprocessor makes images of {made['width']}x{made['height']}, and it takes {side}x{side}",
            )

    @torch.inference_mode()
    def look(self, seen: Sequence[LabelInput]) -> list[Margin]:
        """Return the margin of each image."""
        inputs = self._processor(images=[Image.fromarray(each.image) for each in seen], return_tensors="pt")
        pooled = self._model.vision_model(inputs.pixel_values.to(self._device))[1]
        embeds = self._model.visual_projection(pooled)  # [b, d]
        special = _above(embeds, self._model.special_care_embeds, self._model.special_care_embeds_weights)
        concepts = _above(embeds, self._model.concept_embeds, self._model.concept_embeds_weights)
        return [Margin(float(margin)) for margin in margins(special, concepts)]


def margins(special: NDArray[np.float32], concepts: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how far each image is beyond the concept that it exceeds most: [b], to three digits.

    `special` [b, m] and `concepts` [b, n] are cosines minus thresholds. diffusers flags values above 0: it computes the
    same differences in float32, and rounds them before it compares.
    """
    care = (np.round(special, _DIGITS) > 0).any(axis=1)  # [b]
    adjusted = concepts + np.where(care, _STRICTER, np.float32(0))[:, None]
    return np.asarray(np.round(np.round(adjusted, _DIGITS).max(axis=1).astype(np.float64), _DIGITS))


def _above(embeds: torch.Tensor, known: Any, thresholds: Any) -> NDArray[np.float32]:
    """Return the cosines of `embeds` [b, d] and `known` [n, d], minus `thresholds` [n]: [b, n]."""
    cosines = torch.mm(functional.normalize(embeds), functional.normalize(known).t()).cpu().numpy()
    return np.asarray(cosines - thresholds.cpu().numpy(), np.float32)
