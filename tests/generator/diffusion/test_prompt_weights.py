"""Prompt weights as the UNet gets them: the reference is the output of compel for the same prompts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from compel import Compel, SplitLongTextMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffugen_api.prompt_weights import read
from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.components import Components, load
from tests.generator.drawers import ImageDrawer

SETTINGS = DrawingSettings(width=64, height=64, steps=3, guidance=3.0)


@pytest.fixture(scope="module")
def components(tiny_model: ModelFolder) -> Components:
    """The tiny model with a text encoder of Stable Diffusion 1's size (except for its depth), with random weights."""
    torch.manual_seed(5)
    parts = load(tiny_model, torch.device("cpu"))
    (first,) = parts.encoders
    own = first.network.config
    config = CLIPTextConfig(
        vocab_size=own.vocab_size,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=2,
        num_attention_heads=12,
        hidden_act="quick_gelu",
        max_position_embeddings=77,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        pad_token_id=own.pad_token_id,
    )
    encoder = CLIPTextModel(config).eval().requires_grad_(False)
    parts.tokenizer.limit = 77
    return replace(parts, encoders=(replace(first, network=encoder),))


@pytest.fixture(scope="module")
def oracle(tiny_model: ModelFolder, components: Components) -> Compel:
    tokenizer = CLIPTokenizer.from_pretrained(tiny_model.path / "tokenizer", model_max_length=77)
    return Compel(
        tokenizer,
        components.encoders[0].network,
        truncate_long_prompts=False,
        split_long_text_mode=SplitLongTextMode.WORDS,
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "a red ball",
        "a red ball++ on snow",
        "(a red ball)1.3 on snow",
        "a red-- ball on snow",
        "a (red ball)0.4 on (snow)0.7, light++",
        "a (red)0 ball",
        "a (blue (star)1.2 and snow)0.5 light",
        "a red ball and a blue star on snow " * 12 + "and (traffic light)1.4 on snow- " + "a star " * 30,
    ],
)
def test_states_equal_those_of_compel(components: Components, oracle: Compel, prompt: str) -> None:
    ours = TextStates(components).of([read(prompt)])

    theirs = oracle(prompt)

    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_both_syntaxes_give_the_same_states(components: Components) -> None:
    texts = TextStates(components)

    assert torch.equal(*texts.of([read("a (red ball:1.3) on snow"), read("a (red ball)1.3 on snow")]))


def test_texts_of_unequal_length_are_padded_as_compel_does(components: Components, oracle: Compel) -> None:
    prompt, negative = "a red ball++ " * 40, "a (star)1.2"

    ours = TextStates(components).of([read(prompt), read(negative)])
    theirs = oracle.pad_conditioning_tensors_to_same_length([oracle(prompt), oracle(negative)])

    torch.testing.assert_close(ours, torch.cat(theirs), atol=2e-5, rtol=0)


def test_a_model_that_masks_its_padding_still_masks_it(components: Components) -> None:
    (own,) = components.encoders
    config = type(own.network.config).from_dict(own.network.config.to_dict())
    config.use_attention_mask = True
    masking = CLIPTextModel(config).eval()
    masking.load_state_dict(own.network.state_dict())
    texts = TextStates(replace(components, encoders=(replace(own, network=masking),)))

    assert texts.of([read("a (red)0.5 ball")]).isfinite().all()


def test_weights_change_their_own_image_and_no_other_image_of_the_batch(tiny_model: ModelFolder) -> None:
    parts = load(tiny_model, torch.device("cpu"))
    drawer = ImageDrawer(parts, TextStates(parts))
    orders = [DrawRequest(read(text), 7) for text in ("a red ball", "a (red)3 ball", "a red ball", "a (red)0.2 ball")]

    images = [image.astype(int) for image in drawer.draw(orders, SETTINGS)]
    alone = [drawer.draw([order], SETTINGS)[0].astype(int) for order in orders]

    assert np.abs(images[0] - images[2]).max() <= 2
    assert np.abs(images[0] - images[1]).max() > 2
    assert np.abs(images[0] - images[3]).max() > 2
    assert max(np.abs(some - other).max() for some, other in zip(images, alone, strict=True)) <= 2
