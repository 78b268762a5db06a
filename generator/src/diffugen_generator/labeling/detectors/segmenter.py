"""Instance segmenters of transformers: Mask2Former and similar models, and RF-DETR.

Both return for each query the likelihood of each class, and a mask of logits at a fraction of the image's resolution.
The first kind has a softmax with one class more, which means that a query found nothing. A mask's score is the score of
its class times the certainty of its pixels (Cheng et al. 2022). The second kind has a sigmoid for each class
(Robinson et al. 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModelForInstanceSegmentation, AutoModelForUniversalSegmentation

from diffugen_api.v1alpha1 import LEAST_CONFIDENCE
from diffugen_generator.labeling.detectors.loading import load_model, load_part
from diffugen_generator.labeling.evidence.detections import MOST, Detections
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.side_models import SideModel

SIGMOID = ("rf_detr",)
"""Families with a sigmoid for each class."""


class Segmenter:
    """An instance segmenter on one device."""

    def __init__(self, side_model: SideModel, device: torch.device) -> None:
        """Load the model; raise `SpecError` if it cannot be loaded."""
        self._sigmoid = side_model.family in SIGMOID
        auto = AutoModelForInstanceSegmentation if self._sigmoid else AutoModelForUniversalSegmentation
        self._model = load_model(auto, side_model, device)
        self._processor = load_part(AutoImageProcessor, side_model)
        self._names = {int(number): str(name) for number, name in self._model.config.id2label.items()}
        self._device = device

    @torch.inference_mode()
    def look(self, seen: Sequence[LabelInput]) -> list[Detections]:
        """Return the detections in images of one size."""
        inputs = self._processor(images=[Image.fromarray(each.image) for each in seen], return_tensors="pt")
        pixels = inputs["pixel_values"].to(self._device)  # [b, 3, h, w]
        inside = _inside(inputs.get("pixel_mask"), pixels)
        out = self._model(pixel_values=pixels)
        scores, masks = self._answers(out)  # [b, queries, classes], [b, queries, h', w']
        return [
            self._detections(scores[i], masks[i], tuple(pixels.shape[2:]), inside[i], each.image.shape[:2])
            for i, each in enumerate(seen)
        ]

    def _answers(self, out: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if self._sigmoid:
            return out.logits.sigmoid(), out.pred_masks
        masks = out.masks_queries_logits
        sure = masks.sigmoid() * (masks > 0)
        certainty = sure.sum(dim=(2, 3)) / (masks > 0).sum(dim=(2, 3)).clamp_min(1)  # [b, queries]
        return out.class_queries_logits.softmax(dim=2)[..., :-1] * certainty[..., None], masks

    def _detections(
        self,
        scores: torch.Tensor,
        masks: torch.Tensor,
        padded: tuple[int, ...],
        inside: tuple[int, int],
        size: tuple[int, ...],
    ) -> Detections:
        """Read one image's answers: `scores` [queries, classes], `masks` [queries, h', w'].

        The masks cover the padded image, with height and width `padded`. Its upper left part, of size `inside`, is the
        image itself. The returned masks have the image's own `size`.
        """
        best, order = scores.flatten().topk(min(MOST, scores.numel()))
        kept = [(float(s), *divmod(int(at), scores.shape[1])) for s, at in zip(best, order, strict=True)]
        kept = [each for each in kept if each[0] >= LEAST_CONFIDENCE and each[2] in self._names]
        if not kept:
            return Detections((size[0], size[1]), ())
        chosen = masks[[query for _, query, _ in kept]][None]
        large = functional.interpolate(chosen, size=padded, mode="bilinear", align_corners=False)
        shown = large[..., : inside[0], : inside[1]]
        own = functional.interpolate(shown, size=size, mode="bilinear", align_corners=False)[0] > 0
        return Detections.of(own.cpu().numpy(), [self._names[c] for *_, c in kept], [s for s, *_ in kept])


def _inside(mask: torch.Tensor | None, pixels: torch.Tensor) -> list[tuple[int, int]]:
    """Return height and width of each image without its padding, which is to the right and below."""
    if mask is None:
        return [(pixels.shape[2], pixels.shape[3])] * len(pixels)
    return [(int(each.any(dim=1).sum()), int(each.any(dim=0).sum())) for each in mask.bool()]
