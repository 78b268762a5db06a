"""Looking at pictures: deterministic, batched, at the right levels of small and large UNets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffugen_api.plan import SpecError
from diffugen_api.prompt_weights import Piece
from diffugen_generator.diffusion.components import load
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.labeling.attention.posthoc import Looker
from diffugen_generator.labeling.labeler import Seen
from diffugen_generator.labeling.words import Vocabulary
from diffugen_generator.models.model_folder import ModelFolder

VOCABULARY = Vocabulary({"ball": ["ball"], "star": ["star", "light"]}, ["snow"])
PROMPTS = ["a red ball on snow", "a star and a ball", "a blue light", "and on"]


def looker_of(model: ModelFolder, *, refine: bool = False) -> Looker:
    components = load(model, torch.device("cpu"))
    return Looker(components, TextStates(components), VOCABULARY, refine=refine)


def seen_of(prompts: list[str], *, height: int = 64, width: int = 96) -> list[Seen]:
    rng = np.random.default_rng(3)
    pictures: list[NDArray[np.uint8]] = [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in prompts]
    return [Seen(picture, prompt, 40 + i) for i, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True))]


@pytest.mark.parametrize("refine", [False, True])
def test_each_picture_is_read_at_its_own_words_in_any_batch(tiny_model: ModelFolder, refine: bool) -> None:
    looker = looker_of(tiny_model, refine=refine)
    seen = seen_of(PROMPTS)

    evidence = looker.look(seen)

    assert [(each.classes, each.background) for each in evidence] == [
        (("ball",), ("snow",)),
        (("ball", "star"), ()),
        (("star",), ()),
        ((), ()),
    ]
    for each in evidence:
        assert each.maps.shape == (len(each.classes) + len(each.background), 16, 24)
        assert all((m.min(), m.max()) == (0, 255) for m in each.maps)
    for alone, together in zip([looker.look([each])[0] for each in seen], evidence, strict=True):
        assert np.abs(alone.maps.astype(int) - together.maps).max(initial=0) <= 2
    for padded, together in zip(looker.look(seen[:3], batch=5), evidence[:3], strict=True):
        assert np.abs(padded.maps.astype(int) - together.maps).max(initial=0) <= 2


def test_a_class_named_twice_has_both_places(tiny_model: ModelFolder) -> None:
    looker = looker_of(tiny_model)
    (picture,) = seen_of(["a ball"])

    (both,) = looker.look([Seen(picture.picture, "a red star and a blue light", 7)])

    assert both.classes == ("star",)
    assert both.maps.max() == 255


def test_a_large_unet_is_read_below_its_first_level(large_model: ModelFolder) -> None:
    (evidence,) = looker_of(large_model).look(seen_of(["a ball"]))

    assert evidence.maps.shape == (1, 8, 12)


def test_a_unet_without_cross_attention_where_it_is_read_is_refused(
    tiny_model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    looker = looker_of(tiny_model)
    monkeypatch.setattr(looker, "_weights", {3: 1.0})

    with pytest.raises(SpecError, match="has no cross-attention at levels"):
        looker.look(seen_of(["a ball"]))


def test_words_in_later_windows_are_read_in_any_batch(tiny_model: ModelFolder) -> None:
    looker = looker_of(tiny_model)
    seen = seen_of(["a ball", "a red light and " * 5 + "a ball on snow", "a blue star"])

    evidence = looker.look(seen)

    assert [(each.classes, each.background) for each in evidence] == [
        (("ball",), ()),
        (("ball", "star"), ("snow",)),
        (("star",), ()),
    ]
    for alone, together in zip([looker.look([each])[0] for each in seen], evidence, strict=True):
        assert np.abs(alone.maps.astype(int) - together.maps).max(initial=0) <= 2


def test_a_weight_changes_where_nothing_stands(tiny_model: ModelFolder) -> None:
    looker = looker_of(tiny_model)
    (picture,) = seen_of(["a red ball on snow"])
    weighted = Seen(picture.picture, (Piece("a red ", 1.0), Piece("ball", 1.4), Piece(" on snow", 1.0)), picture.seed)

    assert np.array_equal(looker.look([weighted])[0].maps, looker.look([picture])[0].maps)
