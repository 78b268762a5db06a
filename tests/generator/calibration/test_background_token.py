"""The token for what is no object: how it is trained, when it is used, and how maps are read with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from diffugen_api.v1alpha1 import AttentionLabeling
from diffugen_api.words import Vocabulary, mentions
from diffugen_generator.calibration import background_token
from diffugen_generator.calibration.background_token import Reading, TokenTraining
from diffugen_generator.calibration.calibrate import calibrate
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.unet.components import load
from diffugen_generator.labeling.attention.posthoc import PosthocAttention
from diffugen_generator.labeling.attention.word_maps import mention_columns
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.resolve import resolve
from tests.generator.calibration.test_calibration import CLASSES, FIELD, SIZE, annotated
from tests.generator.pipelines import write_shape

CPU = torch.device("cpu")
VOCABULARY = Vocabulary({each.name: each.words for each in CLASSES})
PLACES = {"images": "/images", "masks": "/masks", "backgroundToken": True}
RAW = AttentionLabeling.model_validate({"calibration": PLACES, "refine": False, "snap": False})


def readings_of(training: TokenTraining) -> list[Reading]:
    images = annotated().opened(CLASSES, SIZE, field=FIELD)
    return [training.read(each.pixels, each.caption, each.masks, 0) for each in images]


@pytest.mark.parametrize(("refine", "most"), [(False, 0.97), (True, 1.0)])
def test_training_lowers_the_loss_and_changes_nothing_but_the_token(
    refine: bool, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_token, "STEPS", 20)
    model = load(resolve("builtin://shapes"), CPU)
    training = TokenTraining(model, TextStates(model), VOCABULARY, RAW.model_copy(update={"refine": refine}))
    readings = readings_of(training)
    before = {name: each.clone() for name, each in model.unet.state_dict().items()}

    def loss(token: torch.Tensor) -> float:
        return float(torch.stack([training._loss(each, token) for each in readings]).mean())

    token = training.train(readings)

    assert token.shape == (96,)
    assert loss(token) < most * loss(training.first(readings))
    assert torch.equal(token, training.train(readings))
    assert all(torch.equal(each, before[name]) for name, each in model.unet.state_dict().items())


@pytest.mark.parametrize("shape", ["sd2", "xl"])
def test_models_with_other_text_encoders_have_a_token_of_their_width(
    tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_token, "STEPS", 2)
    model = load(resolve(str(write_shape(tmp_path / shape, shape))), CPU)
    training = TokenTraining(model, TextStates(model), VOCABULARY, RAW)
    readings = readings_of(training)

    token = training.train(readings)

    assert token.shape == readings[0].states.shape[2:]
    assert torch.isfinite(token).all()
    assert not torch.equal(token, training.first(readings))


def test_the_texts_that_the_network_read_give_the_maps_of_the_pass() -> None:
    model, prompts = load(resolve("builtin://shapes"), CPU), ["a red ball on snow", "a ball and a star"]
    texts, read = TextStates(model), [model.read(prompt) for prompt in prompts]
    columns = mention_columns(read, [mentions(prompt, VOCABULARY) for prompt in prompts])
    conditioning = texts.conditioning(prompts)
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))

    with torch.no_grad():
        with model.attention.one_pass(columns, (16, 16), self_attention=False) as usual:
            model.predictor(conditioning)(latents, torch.tensor(100))
        with model.attention.queried_pass((16, 16), self_attention=False) as queried:
            model.predictor(conditioning)(latents, torch.tensor(100))
        known = torch.ones(2, len(read[0].ids), dtype=torch.bool)
        same = queried.attributed(conditioning.states, columns, known)
        known[0, 0] = False
        other = queried.attributed(conditioning.states, columns, known)

    assert torch.allclose(same, usual.maps(), atol=1e-5)
    assert torch.equal(other[1], same[1])
    assert not torch.allclose(other[0], same[0], atol=1e-3), "the start mark takes part no more"


@pytest.mark.parametrize(("true", "used"), [(True, True), (False, False)])
def test_a_token_is_used_only_if_it_helps_on_images_that_it_was_not_trained_on(
    monkeypatch: pytest.MonkeyPatch, true: bool, used: bool
) -> None:
    """The maps with the token are the masks themselves, or the background."""
    trained_on: list[int] = []

    def train(self: TokenTraining, readings: Sequence[Reading]) -> torch.Tensor:
        trained_on.append(len(readings))
        return torch.ones(96)

    def maps(self: TokenTraining, reading: Reading, token: torch.Tensor) -> torch.Tensor:
        (mask,) = reading.masks.values()
        small = functional.interpolate(mask[None, None], size=(16, 16), mode="area")
        return small if true else 1 - small

    monkeypatch.setattr(TokenTraining, "train", train)
    monkeypatch.setattr(TokenTraining, "maps", maps)
    model = load(resolve("builtin://shapes"), CPU)

    def calibrated(files: Any) -> Any:
        images = files.opened(CLASSES, SIZE, field=FIELD)
        return calibrate(model, TextStates(model), VOCABULARY, images, RAW)

    found = calibrated(annotated())

    assert (found.token == (1.0,) * 96) is used
    assert (found.token == ()) is not used
    assert trained_on == ([2, 2, 4] if used else [2, 2]), "one image of two is held out"
    assert found.after >= found.before
    one = annotated()
    assert calibrated(annotated(masks={"ball/a.png": one.masks["ball/a.png"]})).token == (), "one image tells nothing"


def test_maps_are_read_with_the_token() -> None:
    model = load(resolve("builtin://shapes"), CPU)
    texts = TextStates(model)
    training = TokenTraining(model, texts, VOCABULARY, RAW)
    readings = readings_of(training)
    images = annotated().opened(CLASSES, SIZE, field=FIELD)
    inputs = [LabelInput(each.pixels, each.caption, 5) for each in images]

    def look(token: torch.Tensor | None) -> list[Any]:
        return [
            each.maps for each in PosthocAttention(model, texts, VOCABULARY, refine=False, token=token).look(inputs)
        ]

    trained = training.train(readings)
    with_token, plain = look(trained), look(None)

    def overlap(maps: Any, mask: Any) -> float:
        found = np.kron(maps[0], np.ones((4, 4))) >= 0.4 * 255
        return float((found & mask).sum() / (found | mask).sum())

    masks = [next(iter(each.masks.values())) for each in images]
    gains = [overlap(a, m) - overlap(b, m) for a, b, m in zip(with_token, plain, masks, strict=True)]
    assert np.mean(gains) > 0
