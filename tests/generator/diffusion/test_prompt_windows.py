"""Prompt weights are applied, and a negative prompt is encoded to its end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffugen_api.prompt_weights import read
from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.components import Components, load
from tests.generator.drawers import ImageDrawer

UNLIKED = "(red ball, blue star:1.4), traffic light, snow, " * 8 + "a ball"
"""Over a hundred words; the model's window has eighteen."""


@pytest.fixture(scope="module")
def components(tiny_model: ModelFolder) -> Components:
    return load(tiny_model, torch.device("cpu"))


# fault 1 of DiffuGen's catalog
@pytest.mark.parametrize("weighted", ["a red ball++ on snow", "a red (ball:1.21) on snow"])
def test_weights_are_applied_and_never_read_as_text(components: Components, weighted: str) -> None:
    plain = components.tokenizer.read("a red ball on snow")
    read_as_text = components.tokenizer.read(weighted)

    tokens = components.tokenizer.read(read(weighted))
    states = TextStates(components).of([read(weighted), "a red ball on snow"])

    assert tokens.ids == plain.ids != read_as_text.ids, "the marks take no token"
    assert not torch.allclose(states[0], states[1]), "and the weight is felt"


# fault 1 of DiffuGen's catalog
def test_both_syntaxes_give_the_same_weights(components: Components) -> None:
    compel, a1111 = TextStates(components).of([read("a red ball++ on snow"), read("a red (ball:1.21) on snow")])

    torch.testing.assert_close(compel, a1111)


# fault 2 of DiffuGen's catalog
def test_a_negative_prompt_beyond_the_window_is_read_to_its_end(components: Components) -> None:
    negative = read(UNLIKED)
    tokens = components.tokenizer.read(negative)
    drawer = ImageDrawer(components, TextStates(components))
    order = DrawRequest("a red ball", 7)

    whole, without_its_end = (
        drawer.draw([order], DrawingSettings(width=64, height=64, steps=3, guidance=3.0, negative=text))[0].astype(int)
        for text in (negative, read(UNLIKED.removesuffix("a ball")))
    )

    words = sum(begin < end for begin, end in tokens.spans)
    assert tokens.windows > 1
    assert words > 2 * components.tokenizer.limit
    assert np.abs(whole - without_its_end).max() > 0, "the last two words change the image"
