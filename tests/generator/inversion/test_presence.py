"""The card's figures: what images show that are drawn with the word, against the initializer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from diffugen_generator.commands.train_token import show_trained, worth_of
from diffugen_generator.diffusion.drawing import DrawingSettings
from diffugen_generator.families.registry import family_of
from diffugen_generator.inversion import presence
from diffugen_generator.inversion.images import TrainingImage
from diffugen_generator.inversion.presence import common_content, content_of, presence_of
from diffugen_generator.inversion.settings import TrainingSettings
from diffugen_generator.models.resolve import resolve
from generator.training import scenes
from tests.generator.inversion.trainings import CPU, SETTINGS, a_model, components_of, some_images

DRAWING = DrawingSettings(width=64, height=64, steps=12, guidance=3.0)


def purple_stars(count: int) -> list[NDArray[np.uint8]]:
    """Return drawn scenes with one object: a purple star."""
    drawn = scenes.draw(400, np.random.default_rng(3), two=0.0)
    stars = [n for n in range(400) if scenes.words_of(drawn, n).objects == (("purple", "star"),)]
    return [drawn.images[number] for number in stars[:count]]


def test_the_oracle_names_the_objects_of_an_image_of_any_size() -> None:
    drawn = scenes.draw(40, np.random.default_rng(1))
    right = [content_of(drawn.images[n]) == tuple(sorted(scenes.words_of(drawn, n).objects)) for n in range(40)]
    assert np.mean(right) > 0.9
    (star,) = purple_stars(1)
    assert content_of(star.repeat(2, axis=0).repeat(2, axis=1)) == (("purple", "star"),)


def test_the_objects_are_those_that_most_images_show() -> None:
    (blank,) = scenes.draw(1, np.random.default_rng(1)).images * 0

    assert common_content([*purple_stars(2), blank]) == (("purple", "star"),)
    assert common_content([*purple_stars(2), blank, blank]) == ()
    assert common_content([blank]) == ()


def test_images_of_the_built_in_model_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "COUNTED", 8)
    folder = resolve("builtin://shapes")
    family = family_of(folder.pipeline)
    model = family.token_model(family.load(folder, CPU), "<gem>", "purple star", 2, field="x")
    settings = TrainingSettings("<gem>", "star", vectors=2)
    images = [TrainingImage(f"{number}.png", each) for number, each in enumerate(purple_stars(3))]

    found = presence_of(model, images, settings, DRAWING)

    assert (found["measure"], found["of"], found["images"]) == ("oracle", ["purple star"], 8)
    assert found["token"] >= 0.75 > 0.5 >= found["initializer"]
    assert worth_of(found) == (
        f"{found['token']:.0%} of 8 images show a purple star; with the initializer, {found['initializer']:.0%}"
    )


class Brightness:
    """Compares images by their mean brightness."""

    uri = "hf://some/clip"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def between(self, drawn: Sequence[NDArray[np.uint8]], examples: Sequence[NDArray[np.uint8]]) -> float:
        self.seen += [len(drawn), len(examples)]
        return float(1 - abs(np.mean(drawn) - np.mean(examples)) / 255)


def test_images_of_other_models_are_compared_if_there_is_a_clip_model(tmp_path: Path) -> None:
    model, similarity = a_model(components_of(tmp_path)), Brightness()

    found = presence_of(model, some_images(), SETTINGS, DRAWING, similarity)

    assert (found["measure"], found["model"], found["images"]) == ("clip", "hf://some/clip", 8)
    assert 0 < found["token"] < 1
    assert similarity.seen == [8, 3, 8, 3]
    assert worth_of(found) == (
        f"similarity with the training images {found['token']:.3f}; with the initializer, {found['initializer']:.3f}"
    )


def test_the_card_says_why_nothing_is_measured(tmp_path: Path) -> None:
    model: Any = a_model(components_of(tmp_path))

    found = presence_of(model, some_images(), SETTINGS, DRAWING)

    assert (found["measure"], found["token"], found["initializer"]) == (None, None, None)
    assert "spec.quality.clipScore.model" in found["reason"]
    assert worth_of(found) is None


def test_the_card_of_an_earlier_version_is_shown(tmp_path: Path) -> None:
    card = {
        "loss": {"first": 0.2, "best": 0.1, "bestStep": 3},
        "settings": {"token": "<piano>"},
        "plateaued": False,
        "steps": 5,
        "seconds": 1.0,
    }
    shown = io.StringIO()

    show_trained(Console(file=shown), card, tmp_path, "samples.png")

    assert "<piano>: 5 steps" in shown.getvalue()
    assert "presence" not in shown.getvalue()
