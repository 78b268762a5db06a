"""`diffugen train-token`: the files in the output folder, and what a second call does."""

import io
import json
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

from diffugen_api.errors import SpecError
from diffugen_generator.failures import Interrupted
from diffugen_generator.inversion import local
from diffugen_generator.inversion.images import training_images
from diffugen_generator.inversion.local import Sources, train_here
from diffugen_generator.inversion.training import TrainingState
from tests.generator.inversion.trainings import CPU, SETTINGS, TOKEN, settings, write_images
from tests.generator.pipelines import write_shape
from tests.generator.test_cli import diffugen

pytestmark = pytest.mark.usefixtures("quick_sample_grids")
FILES = {"learned_embeds.safetensors", "card.json", "samples.png", "loss.png"}


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(str(write_shape(tmp_path / "model", "sd1")), write_images(tmp_path / "images"))


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_training_writes_the_embedding_a_card_samples_and_the_loss(tmp_path: Path, sources: Sources) -> None:
    card = train_here(sources, SETTINGS, tmp_path / "out", CPU)

    assert names_in(tmp_path / "out") == FILES
    assert json.loads((tmp_path / "out/card.json").read_text()) == card
    assert card["model"]["pipeline"] == "StableDiffusionPipeline"
    assert sorted(card["images"]) == ["0.png", "1.png", "2.png"]
    assert (card["settings"]["token"], card["steps"]) == (TOKEN, 12)
    assert card["loss"]["best"] <= card["loss"]["first"]
    assert (card["presence"]["measure"], card["presence"]["token"]) == (None, None)
    vectors = safetensors.torch.load((tmp_path / "out/learned_embeds.safetensors").read_bytes())
    assert [(name, tuple(each.shape)) for name, each in vectors.items()] == [(TOKEN, (1, 32))]
    with Image.open(tmp_path / "out/samples.png") as samples:
        assert samples.size == (4 * 68 + 4, 3 * 68 + 12)


def test_a_finished_training_is_not_repeated_and_a_changed_one_runs(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train_here(sources, SETTINGS, tmp_path / "out", CPU)

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patched:
        patched.setattr(local, "train", refused)
        assert train_here(sources, SETTINGS, tmp_path / "out", CPU) == first
        for changed in (settings(steps=13), settings(seed=1), settings(initializer="star")):
            with pytest.raises(AssertionError, match="trained again"):
                train_here(sources, changed, tmp_path / "out", CPU)
        write_images(tmp_path / "images", 4)
        with pytest.raises(AssertionError, match="trained again"):
            train_here(sources, SETTINGS, tmp_path / "out", CPU)


def test_a_stopped_training_continues_from_its_checkpoint(tmp_path: Path, sources: Sources) -> None:
    whole = train_here(sources, SETTINGS, tmp_path / "whole", CPU)
    stop, steps = Event(), list[int]()

    def stop_at(state: TrainingState) -> None:
        if state.step == 5:
            stop.set()

    with pytest.raises(Interrupted, match="stopped after 5 of 12 steps; the same command goes on from there"):
        train_here(sources, SETTINGS, tmp_path / "out", CPU, on_progress=stop_at, stop=stop)
    assert names_in(tmp_path / "out") == {"checkpoint.safetensors"}
    resumed = train_here(sources, SETTINGS, tmp_path / "out", CPU, on_progress=lambda state: steps.append(state.step))

    assert steps == list(range(6, 13))
    assert names_in(tmp_path / "out") == FILES
    assert (whole["resumedAt"], resumed["resumedAt"]) == ([], [5])
    for card in (whole, resumed):
        del card["seconds"], card["resumedAt"]
    assert resumed == whole
    vectors = [(tmp_path / each / "learned_embeds.safetensors").read_bytes() for each in ("whole", "out")]
    assert vectors[0] == vectors[1]


def test_masks_are_part_of_a_trainings_address(tmp_path: Path, sources: Sources) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(3):
        Image.new("L", (64, 64), 255).save(masks / f"{number}.png")
    masked = replace(sources, masks=masks)

    card = train_here(masked, SETTINGS, tmp_path / "out", CPU)
    assert card["address"] != train_here(sources, SETTINGS, tmp_path / "other", CPU)["address"]
    (masks / "1.png").unlink()
    with pytest.raises(SpecError, match=r"IMAGES: 1\.png has no mask of its name; add one, or give no masks"):
        train_here(masked, SETTINGS, tmp_path / "out", CPU)
    Image.new("L", (64, 64), 0).save(masks / "1.png")
    with pytest.raises(SpecError, match=r"the mask of 1\.png is dark everywhere"):
        train_here(masked, SETTINGS, tmp_path / "out", CPU)


def test_images_are_resized_to_one_size(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    wide.save(folder / "wide.jpg", quality=95)
    stream = io.BytesIO()
    Image.new("L", (30, 40), 9).save(stream, "png")

    (image,) = training_images({"wide.jpg": (folder / "wide.jpg").read_bytes()}, {}, (64, 64), field="x")
    assert image.pixels.shape == (64, 64, 3)
    assert image.pixels[..., 2].mean() > 240, "the middle of it"
    (gray,) = training_images({"a.png": stream.getvalue(), "notes.txt": b""}, {}, (64, 32), field="x")
    assert gray.pixels.shape == (32, 64, 3)


def test_bad_images_are_named(tmp_path: Path, sources: Sources) -> None:
    (sources.images / "bad.png").write_bytes(b"no image")
    with pytest.raises(SpecError, match=r"IMAGES: bad\.png is no whole image .*; remove or replace it"):
        train_here(sources, SETTINGS, tmp_path / "out", CPU)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match="IMAGES: there is no image"):
        train_here(replace(sources, images=tmp_path / "empty"), SETTINGS, tmp_path / "out", CPU)
    with pytest.raises(SpecError, match="IMAGES: there is no folder"):
        train_here(replace(sources, images=tmp_path / "gone"), SETTINGS, tmp_path / "out", CPU)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"initializer": " "}, r"train-token\.initializer: ' ' has no word; write one"),
        (
            {"templates": ("a {}" * 20,)},
            r"train-token\.templates\[0\]: .* is longer than the text encoder reads",
        ),
        (
            {"templates": (), "vectors": 32},
            r"train-token\.templates\[0\]: .* is longer than the text encoder reads .*train fewer vectors",
        ),
    ],
)
def test_the_error_names_what_cannot_be_trained(
    tmp_path: Path, sources: Sources, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(SpecError, match=expected):
        train_here(sources, settings(**changes), tmp_path / "out", CPU)


def test_built_in_sentences_that_are_too_long_for_the_model_are_left_out(tmp_path: Path, sources: Sources) -> None:
    card = train_here(sources, settings(templates=()), tmp_path / "out", CPU)

    assert card["steps"] == 12


def test_a_fault_leaves_the_model_unchanged(tmp_path: Path, sources: Sources) -> None:
    with pytest.raises(SpecError):
        train_here(sources, settings(templates=("a {}" * 20,)), tmp_path / "out", CPU)

    assert train_here(sources, SETTINGS, tmp_path / "out", CPU)["steps"] == 12


OPTIONS = ("--token", TOKEN, "--initializer", "ball", "--size", "64", "--steps", "2", "--batch", "1")


def test_the_command_trains_and_prints_the_result(tmp_path: Path, sources: Sources) -> None:
    arguments = (sources.images, *OPTIONS, "--model", sources.model, "--output", tmp_path / "out", "--template", "a {}")
    ended = diffugen("train-token", *arguments)

    assert ended.returncode == 0, ended.stderr
    assert f"{TOKEN}: 2 steps (all steps done)" in ended.stdout
    assert names_in(tmp_path / "out") == FILES
    assert torch.isfinite(
        safetensors.torch.load((tmp_path / "out/learned_embeds.safetensors").read_bytes())[TOKEN]
    ).all()


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--token", "two words", "--token: 'two words' is not one word"),
        ("--vectors", "33", "--vectors: 33 is not between 1 and 32"),
        ("--steps", "0", "--steps: 0 is not between 1 and"),
        ("--learning-rate", "2", "--learning-rate: 2 is not above 0 and at most 1"),
        ("--learn", "thing", "--learn: 'thing' is neither object nor style"),
        ("--template", "a photo", "--template: 'a photo' has no {} for the word; add it"),
        ("--size", "65", "--size: 65 is not a multiple of 8 from 64 to 2048"),
        ("--size", "big", "--size: 'big' is no size; give pixels such as 512, or 768x512"),
    ],
)
def test_a_bad_option_is_named(tmp_path: Path, option: str, value: str, expected: str) -> None:
    ended = diffugen("train-token", tmp_path, *OPTIONS, "--model", "x", "-o", tmp_path / "out", option, value)

    assert ended.returncode == 64
    assert expected in ended.stderr


def test_a_preview_is_drawn_during_the_training(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffugen_generator.inversion.train._PREVIEW_EVERY", 0.0)
    seen = list[bool]()

    def look(_: TrainingState) -> None:
        seen.append((tmp_path / "out/preview.png").exists())

    train_here(sources, settings(steps=3), tmp_path / "out", CPU, on_progress=look)

    assert seen == [False, True, True]
    assert names_in(tmp_path / "out") == FILES
