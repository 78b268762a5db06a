"""Open-vocabulary detectors: Grounding DINO or OWLv2 finds boxes for given words, SAM 2 makes their masks.

In Grounding DINO, a word's score for a box is the greatest score among the word's tokens (Liu et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForMaskGeneration, AutoModelForZeroShotObjectDetection, AutoProcessor

from diffugen_api.v1alpha1 import LEAST_CONFIDENCE
from diffugen_generator.labeling.detectors.loading import load_model, load_part
from diffugen_generator.labeling.evidence.detections import MOST, Detections
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.side_models import SideModel

GROUNDING = ("grounding-dino", "mm-grounding-dino")
"""Families that read all words as one text."""


class OpenVocabulary:
    """A box finder and a mask maker on one device."""

    def __init__(self, boxes: SideModel, masks: SideModel, words: Sequence[str], device: torch.device) -> None:
        """Load both models, to find objects by `words`; raise `SpecError` if one cannot be loaded."""
        self._finder = load_model(AutoModelForZeroShotObjectDetection, boxes, device)
        self._finder_processor = load_part(AutoProcessor, boxes)
        self._grounding = boxes.family in GROUNDING
        self._masker = load_model(AutoModelForMaskGeneration, masks, device)
        self._masker_processor = load_part(AutoProcessor, masks)
        self._words = list(words)
        self._device = device

    @torch.inference_mode()
    def look(self, seen: Sequence[LabelInput]) -> list[Detections]:
        """Return the detections in each image."""
        return [self._look(each.image) for each in seen]

    def _look(self, raster: NDArray[np.uint8]) -> Detections:
        scores, boxes = self._boxes(raster)  # [queries, words], [queries, 4]
        best, order = scores.flatten().topk(min(MOST, scores.numel()))
        kept = [int(at) for score, at in zip(best, order, strict=True) if float(score) >= LEAST_CONFIDENCE]
        places = [divmod(at, len(self._words)) for at in kept]
        if not places:
            return Detections((raster.shape[0], raster.shape[1]), ())
        masks = self._masks(raster, boxes[[query for query, _ in places]])
        return Detections.of(masks, [self._words[word] for _, word in places], [float(s) for s in best[: len(kept)]])

    def _boxes(self, raster: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each word's score for each box [queries, words], and the boxes' corners in pixels [queries, 4]."""
        height, width = raster.shape[:2]
        text: Any = grounding_text(self._words) if self._grounding else [self._words]
        inputs = self._finder_processor(images=Image.fromarray(raster), text=text, return_tensors="pt")
        out = self._finder(**inputs.to(self._device))
        centre, extent = out.pred_boxes[0].split(2, dim=1)
        corners = torch.cat([centre - extent / 2, centre + extent / 2], dim=1)  # in 0..1 of the model's input image
        probabilities = out.logits[0].sigmoid()
        if self._grounding:
            scale = torch.tensor([width, height, width, height], device=self._device)
            return self._by_word(probabilities, text), corners * scale
        return probabilities[:, : len(self._words)], corners * max(height, width)  # OWLv2 pads to a square

    def _by_word(self, probabilities: torch.Tensor, text: str) -> torch.Tensor:
        """Return each word's greatest score among its tokens: [queries, words] of `probabilities` [queries, tokens]."""
        tokens = self._finder_processor.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        columns = []
        for begin, end in spans_of(self._words):
            own = [at for at, (a, b) in enumerate(tokens) if a < b and a < end and begin < b]
            columns.append(probabilities[:, own].amax(dim=1) if own else probabilities.new_zeros(len(probabilities)))
        return torch.stack(columns, dim=1)

    def _masks(self, raster: NDArray[np.uint8], boxes: torch.Tensor) -> NDArray[np.bool_]:
        """Return a mask [height, width] for each of `boxes` [n, 4]."""
        inputs = self._masker_processor(
            images=Image.fromarray(raster), input_boxes=[boxes.tolist()], return_tensors="pt"
        ).to(self._device)
        out = self._masker(**inputs, multimask_output=False)
        sizes = inputs["original_sizes"].tolist()
        masks = self._masker_processor.post_process_masks(out.pred_masks.cpu(), sizes)[0]  # [n, 1, h, w]
        return np.asarray(masks[:, 0].numpy(), np.bool_)


def grounding_text(words: Sequence[str]) -> str:
    """Return the words as one text in lower case, with a full stop after each, as in Grounding DINO's training."""
    return " ".join(f"{word.lower()}." for word in words)


def spans_of(words: Sequence[str]) -> list[tuple[int, int]]:
    """Return begin and end (exclusive) of each word's characters in `grounding_text`."""
    spans, begin = [], 0
    for word in words:
        spans.append((begin, begin + len(word.lower())))
        begin += len(word.lower()) + 2
    return spans
