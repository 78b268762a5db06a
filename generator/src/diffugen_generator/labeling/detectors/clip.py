"""How well an image fits its prompt, by CLIP: the cosine of the two embeddings (Hessel et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoModel, AutoProcessor

from diffugen_api.prompt_weights import plain
from diffugen_generator.labeling.detectors.loading import load_model, load_part
from diffugen_generator.labeling.evidence.scores import Fit
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.side_models import SideModel


class Clip:
    """A CLIP model on one device. It reads only the first tokens of a long prompt: as many as it has positions."""

    def __init__(self, side_model: SideModel, device: torch.device) -> None:
        """Load the model; raise `SpecError` if it cannot be loaded."""
        self._model = load_model(AutoModel, side_model, device)
        self._processor = load_part(AutoProcessor, side_model)
        self._longest = int(self._model.config.text_config.max_position_embeddings)
        self._device = device

    @torch.inference_mode()
    def look(self, seen: Sequence[LabelInput]) -> list[Fit]:
        """Return the score of each image."""
        inputs = self._processor(
            images=[Image.fromarray(each.image) for each in seen],
            text=[plain(each.prompt) for each in seen],
            padding="max_length",
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
        ).to(self._device)
        out = self._model(**inputs)
        cosines = functional.cosine_similarity(out.image_embeds, out.text_embeds, dim=1)  # [b]
        return [Fit(float(cosine)) for cosine in cosines]
