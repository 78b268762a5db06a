"""Labels by attention with every layout of model: the UNet also gets its inputs other than the text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffugen_api.words import Vocabulary
from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.unet.components import load
from diffugen_generator.labeling.attention.posthoc import PosthocAttention
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.resolve import resolve
from tests.generator.drawers import ImageDrawer
from tests.generator.pipelines import SHAPES, write_shape

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_of_any_model_gets_maps_from_that_model(tmp_path: Path, shape: str) -> None:
    components = load(resolve(str(write_shape(tmp_path / shape, shape))), CPU)
    texts = TextStates(components)
    prompts = ["a red ball and a star", "a blue star on snow, a ball " * 4]
    settings = DrawingSettings(width=96, height=64, steps=1, guidance=3.0)
    images = ImageDrawer(components, texts).draw([DrawRequest(prompt, 1) for prompt in prompts], settings)
    posthoc = PosthocAttention(components, texts, Vocabulary({"ball": ["ball"], "star": ["star"]}), refine=True)

    seen = [LabelInput(image, prompt, 1) for image, prompt in zip(images, prompts, strict=True)]
    together, backwards = posthoc.look(seen), posthoc.look(seen[::-1])[::-1]

    for one, other in zip(together, backwards, strict=True):
        assert one.classes == ("ball", "star")
        assert one.maps.max(axis=(1, 2)).min() > 200  # each map has its own full range
        assert np.abs(one.maps.astype(int) - other.maps).max() <= 2
