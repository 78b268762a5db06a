"""Attention from stored images: deterministic, batched, at the right levels of small and large UNets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffugen_api.plan import SpecError
from diffugen_api.prompt_weights import Piece
from diffugen_api.words import Vocabulary
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.components import load
from diffugen_generator.labeling.attention.posthoc import PosthocAttention
from diffugen_generator.labeling.labeler import LabelInput

VOCABULARY = Vocabulary({"ball": ["ball"], "star": ["star", "light"]}, ["snow"])
PROMPTS = ["a red ball on snow", "a star and a ball", "a blue light", "and on"]


def posthoc_of(model: ModelFolder, *, refine: bool = False, rescale: bool = False) -> PosthocAttention:
    components = load(model, torch.device("cpu"))
    return PosthocAttention(components, TextStates(components), VOCABULARY, refine=refine, rescale=rescale)


def label_input(prompts: list[str], *, height: int = 64, width: int = 96) -> list[LabelInput]:
    rng = np.random.default_rng(3)
    images: list[NDArray[np.uint8]] = [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in prompts]
    return [LabelInput(image, prompt, 40 + i) for i, (image, prompt) in enumerate(zip(images, prompts, strict=True))]


@pytest.mark.parametrize("refine", [False, True])
def test_each_image_is_read_at_its_own_tokens_in_any_batch(tiny_model: ModelFolder, refine: bool) -> None:
    posthoc = posthoc_of(tiny_model, refine=refine)
    seen = label_input(PROMPTS)

    evidence = posthoc.look(seen)

    assert [(each.classes, each.background) for each in evidence] == [
        (("ball",), ("snow",)),
        (("ball", "star"), ()),
        (("star",), ()),
        ((), ()),
    ]
    for each in evidence:
        assert each.maps.shape == (len(each.classes) + len(each.background), 16, 24)
        assert all((m.min(), m.max()) == (0, 255) for m in each.maps)
    for alone, together in zip([posthoc.look([each])[0] for each in seen], evidence, strict=True):
        assert np.abs(alone.maps.astype(int) - together.maps).max(initial=0) <= 2
    for padded, together in zip(posthoc.look(seen[:3], batch=5), evidence[:3], strict=True):
        assert np.abs(padded.maps.astype(int) - together.maps).max(initial=0) <= 2


def test_a_class_named_twice_has_both_token_positions(tiny_model: ModelFolder) -> None:
    posthoc = posthoc_of(tiny_model)
    (image,) = label_input(["a ball"])

    (both,) = posthoc.look([LabelInput(image.image, "a red star and a blue light", 7)])

    assert both.classes == ("star",)
    assert both.maps.max() == 255


def test_a_large_unet_is_read_below_its_first_level(large_model: ModelFolder) -> None:
    (evidence,) = posthoc_of(large_model).look(label_input(["a ball"]))

    assert evidence.maps.shape == (1, 8, 12)


def test_a_unet_without_cross_attention_at_the_read_levels_is_refused(
    tiny_model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    posthoc = posthoc_of(tiny_model)
    monkeypatch.setattr("diffugen_generator.families.unet.attention.SMALL_WEIGHTS", {3: 1.0})

    with pytest.raises(SpecError, match="has no cross-attention at levels"):
        posthoc.look(label_input(["a ball"]))


def test_words_in_later_windows_are_read_in_any_batch(tiny_model: ModelFolder) -> None:
    posthoc = posthoc_of(tiny_model)
    seen = label_input(["a ball", "a red light and " * 5 + "a ball on snow", "a blue star"])

    evidence = posthoc.look(seen)

    assert [(each.classes, each.background) for each in evidence] == [
        (("ball",), ()),
        (("ball", "star"), ("snow",)),
        (("star",), ()),
    ]
    for alone, together in zip([posthoc.look([each])[0] for each in seen], evidence, strict=True):
        assert np.abs(alone.maps.astype(int) - together.maps).max(initial=0) <= 2


def test_a_prompt_weight_does_not_change_the_maps(tiny_model: ModelFolder) -> None:
    posthoc = posthoc_of(tiny_model)
    (image,) = label_input(["a red ball on snow"])
    weighted = LabelInput(image.image, (Piece("a red ", 1.0), Piece("ball", 1.4), Piece(" on snow", 1.0)), image.seed)

    assert np.array_equal(posthoc.look([weighted])[0].maps, posthoc.look([image])[0].maps)


def test_rescaled_maps_are_shares_of_the_attention_to_words(tiny_model: ModelFolder) -> None:
    """Two classes and nothing else: their shares are 1 in sum, so one map is the other one upside down."""
    (seen,) = label_input(["ball star"])

    (plain,) = posthoc_of(tiny_model).look([seen])
    (shares,) = posthoc_of(tiny_model, rescale=True).look([seen])

    ball, star = shares.maps.astype(int)
    assert np.abs(ball + star - 255).max() <= 3
    assert np.abs(plain.maps.astype(int).sum(axis=0) - 255).max() > 10
