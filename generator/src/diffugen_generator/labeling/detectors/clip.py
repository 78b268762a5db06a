"""Compares an image with its prompt or other images, by CLIP: the cosine of two embeddings (Hessel et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional
from transformers import AutoModel, AutoProcessor

from diffugen_api.prompt_weights import plain
from diffugen_api.v1alpha1 import S3
from diffugen_generator.labeling.detectors.loading import load_model, load_part
from diffugen_generator.labeling.evidence.scores import Fit
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.side_models import CLIPS, SideModel, find_folder


def open_clip(uri: str, field: str, s3: S3 | None) -> Clip:
    """Open the CLIP model `uri` on the CPU, for a few images; raise `SpecError` naming `field` if it cannot be."""
    return Clip(find_folder(uri, CLIPS, field, s3, weights=True), torch.device("cpu"))


class Clip:
    """A CLIP model on one device. It reads only the first tokens of a long prompt: as many as it has positions."""

    def __init__(self, side_model: SideModel, device: torch.device) -> None:
        """Load the model; raise `SpecError` if it cannot be loaded."""
        self.uri = side_model.uri
        """For messages and cards."""
        self._model = load_model(AutoModel, side_model, device)
        self._processor = load_part(AutoProcessor, side_model)
        self._longest = int(self._model.config.text_config.max_position_embeddings)
        self._device = device

    @torch.inference_mode()
    def look(self, seen: Sequence[LabelInput]) -> list[Fit]:
        """Return the score of each image."""
        out = self._read([each.image for each in seen], [plain(each.prompt) for each in seen])
        cosines = functional.cosine_similarity(out.image_embeds, out.text_embeds, dim=1)  # [b]
        return [Fit(float(cosine)) for cosine in cosines]

    @torch.inference_mode()
    def between(self, drawn: Sequence[NDArray[np.uint8]], examples: Sequence[NDArray[np.uint8]]) -> float:
        """Return the mean cosine over all pairs of a drawn image and an example; both are [height, width, 3] sRGB."""
        ours, theirs = (
            functional.normalize(torch.cat([self._read([image], [""]).image_embeds for image in images]), dim=1)
            for images in (drawn, examples)
        )
        return float((ours @ theirs.T).mean())

    def _read(self, images: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> Any:
        """Return the model's output for pairs of an image and a text."""
        inputs = self._processor(
            images=[Image.fromarray(image) for image in images],
            text=list(texts),
            padding="max_length",
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
        ).to(self._device)
        return self._model(**inputs)
