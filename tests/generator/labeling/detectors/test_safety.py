"""A safety checker: its score is the one that diffusers' checker decides by; flagged images are rejected unchanged."""

from __future__ import annotations

import io
import json
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor
from typer.testing import CliRunner

from diffugen_api import layout
from diffugen_api.errors import SpecError
from diffugen_api.v1alpha1 import LabeledDatasetSpec, Safety
from diffugen_generator.cli import app
from diffugen_generator.commands.display import PlainDisplay
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.given.image_sources import FolderSource
from diffugen_generator.given.label import label, spec_of
from diffugen_generator.labeling.detectors.safety import SafetyChecker
from diffugen_generator.labeling.evidence.scores import Fit, Margin
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.side_models import CHECKERS, find_folder
from diffugen_generator.samples import labels
from diffugen_generator.store.folder import FolderStore
from generator.training import scenes
from tests.generator import tiny_detectors
from tests.generator.made import manifest_lines, spec_data

CPU = torch.device("cpu")


def checker_in(folder: Path) -> SafetyChecker:
    return SafetyChecker(find_folder(str(folder), CHECKERS, "spec.quality.safety.model", None, weights=True), CPU)


def flagged_by_diffusers(checker: StableDiffusionSafetyChecker, folder: Path, rasters: list[Any]) -> list[bool]:
    """Return the flags of diffusers' own forward, which blackens its input images."""
    images = CLIPImageProcessor.from_pretrained(folder)([Image.fromarray(each) for each in rasters])
    given = [np.array(each) for each in rasters]
    _, flagged = checker(images=given, clip_input=torch.tensor(np.stack(images["pixel_values"])))
    assert [not each.any() for each in given] == flagged
    return flagged


def some_images(count: int) -> list[Any]:
    rng = np.random.default_rng(7)
    return [*scenes.draw(count - 2, rng).images, *rng.integers(0, 255, (2, 40, 72, 3), dtype=np.uint8)]


@pytest.mark.parametrize("seed", range(3))
def test_an_image_scores_above_0_if_diffusers_blackens_it(tmp_path: Path, seed: int) -> None:
    checker = checker_in(tiny_detectors.safety_checker(tmp_path, seed))
    model = checker._model
    rasters = some_images(6)
    seen = [LabelInput(each, "", 0) for each in rasters]
    concept, special = _cosines(checker, seen)
    rng = np.random.default_rng(seed)
    decided, at_zero, by_care = [], 0, 0
    for _ in range(100):
        one, other, near = rng.integers(17), rng.integers(3), rng.integers(len(rasters))
        model.concept_embeds_weights.data.fill_(2)
        model.special_care_embeds_weights.data.fill_(2)
        # thousandths, half thousandths and their neighbors: rounding decides these cases
        offsets = rng.integers(-24, 24, 2) / 2000 + rng.choice([0, 1e-5, -1e-5], 2)
        model.concept_embeds_weights.data[one] = concept[near, one] + float(offsets[0])
        model.special_care_embeds_weights.data[other] = special[near, other] + float(offsets[1])

        margins = [each.value for each in checker.look(seen)]

        assert [margin > 0 for margin in margins] == flagged_by_diffusers(model, tmp_path, rasters)
        decided += [margin > 0 for margin in margins]
        at_zero += margins[near] == 0
        model.special_care_embeds_weights.data.fill_(2)
        without = [each.value for each in checker.look(seen)]
        by_care += sum(margin > 0 >= plain for margin, plain in zip(margins, without, strict=True))
        gained = {round(margin - plain, 3) for margin, plain in zip(margins, without, strict=True)}
        assert gained <= {0, 0.009, 0.01, 0.011}
    assert 0.1 < np.mean(decided) < 0.9
    assert at_zero
    assert by_care


def _cosines(checker: SafetyChecker, seen: list[LabelInput]) -> tuple[torch.Tensor, torch.Tensor]:
    """The cosines of images and concepts [n, 17], and of images and special concepts [n, 3], written plainly."""
    pixels = checker._processor(images=[Image.fromarray(each.image) for each in seen], return_tensors="pt")
    model = checker._model
    with torch.no_grad():
        embeds = model.visual_projection(model.vision_model(pixels.pixel_values)[1])
        concepts, special = (
            torch.cosine_similarity(embeds[:, None], known[None], dim=2)
            for known in (model.concept_embeds, model.special_care_embeds)
        )
        return concepts, special


def test_a_margin_does_not_depend_on_the_batch_and_no_image_changes(tmp_path: Path) -> None:
    checker = checker_in(tiny_detectors.safety_checker(tmp_path))
    checker._model.concept_embeds_weights.data.fill_(-2)
    rasters = some_images(4)
    before = [each.copy() for each in rasters]

    together = checker.look([LabelInput(each, "", 0) for each in rasters])

    assert all(each.value > 0 for each in together)
    assert together == [checker.look([LabelInput(each, "", 0)])[0] for each in rasters]
    assert all((one == other).all() for one, other in zip(rasters, before, strict=True))


def test_weights_as_older_libraries_wrote_them_are_the_same_checker(tmp_path: Path) -> None:
    folder = tiny_detectors.safety_checker(tmp_path)
    seen = [LabelInput(each, "", 0) for each in some_images(3)]
    now = checker_in(folder).look(seen)
    weights = load_file(folder / "model.safetensors")
    older = {name.replace("vision_model.", "vision_model.vision_model."): each for name, each in weights.items()}
    assert set(older) != set(weights)
    positions = {"vision_model.vision_model.embeddings.position_ids": torch.arange(17)[None]}
    save_file({**older, **positions}, folder / "model.safetensors", metadata={"format": "pt"})

    assert checker_in(folder).look(seen) == now


def test_weights_in_half_precision_are_used_if_there_are_no_others(tmp_path: Path) -> None:
    folder = tiny_detectors.safety_checker(tmp_path)
    seen = [LabelInput(each, "", 0) for each in some_images(3)]
    now = checker_in(folder).look(seen)
    halved = {name: each.half() for name, each in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    save_file(halved, folder / "model.fp16.safetensors", metadata={"format": "pt"})

    margins = [each.value for each in checker_in(folder).look(seen)]

    assert margins == pytest.approx([each.value for each in now], abs=0.003)


def test_scores_of_different_kinds_cannot_be_confused_and_are_read_back() -> None:
    assert Margin.loads(Margin(0.012).dumps()) == Margin(0.012)
    assert Fit.loads(Fit(0.25).dumps()) == Fit(0.25)
    with pytest.raises(ValueError, match="not a score of an image's margin"):
        Margin.loads(Fit(0.25).dumps())


# --- from manifest to publication ---

PROMPTS = {
    "templates": ["a {color} {object} on {place}"],
    "variables": {"object": ["ball", "star"], "color": ["red", "blue"], "place": ["snow", "sand"]},
}


def run(folder: Path, quality: dict[str, Any] | None = None) -> tuple[int, str]:
    document = {
        "apiVersion": "diffugen.dev/v1alpha1",
        "kind": "LabeledDataset",
        "metadata": {"name": "shapes", "namespace": "vision"},
        "spec": spec_data("builtin://shapes", prompts=PROMPTS, quality={"minInstances": 0, **(quality or {})}),
    }
    (folder / "manifest.yaml").write_text(yaml.safe_dump(document))
    options = ["--store", str(folder / "out"), "--device", "cpu"]
    done = CliRunner().invoke(app, ["run", str(folder / "manifest.yaml"), *options])
    return done.exit_code, done.output


def published(folder: Path) -> tuple[FolderStore, dict[str, dict[str, Any]]]:
    store = FolderStore(folder / "out" / "vision" / "shapes")
    revision = json.loads(store.read("current.json"))["revision"]
    return store, {line["id"]: line for line in manifest_lines(store, revision)}


def with_a_concept_of_half(folder: Path, rasters: list[Any]) -> Path:
    """Give the checker in `folder` a threshold between the images' cosines with its first concept."""
    cosines, _ = _cosines(checker_in(folder), [LabelInput(each, "", 0) for each in rasters])
    weights = load_file(folder / "model.safetensors")
    weights["concept_embeds_weights"] = torch.full((17,), 2.0)
    weights["concept_embeds_weights"][0] = cosines[:, 0].median() + 1e-4
    weights["special_care_embeds_weights"] = torch.full((3,), 2.0)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.usefixtures("shapes_model")
def test_flagged_images_are_kept_and_rejected_and_another_limit_runs_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path)[0] == 0
    store, before = published(tmp_path)
    rasters = {each: np.array(Image.open(io.BytesIO(store.read(line["image"])))) for each, line in before.items()}
    folder = with_a_concept_of_half(tiny_detectors.safety_checker(tmp_path / "checker"), list(rasters.values()))
    model = StableDiffusionSafetyChecker.from_pretrained(folder)
    flagged = dict(zip(rasters, flagged_by_diffusers(model, folder, list(rasters.values())), strict=True))
    assert 2 <= sum(flagged.values()) <= 6

    code, output = run(tmp_path, {"safety": {"model": str(folder)}})

    assert code == 0, output
    _, lines = published(tmp_path)
    assert {each: line["reason"] for each, line in lines.items()} == {
        each: "Unsafe" if bad else "" for each, bad in flagged.items()
    }
    assert all((line["scores"]["safety"] > 0) is flagged[each] for each, line in lines.items())
    assert {each: line["instances"] for each, line in lines.items()} == {
        each: line["instances"] for each, line in before.items()
    }
    for each, raster in rasters.items():  # drawn once, never blackened
        assert (np.array(Image.open(io.BytesIO(store.read(lines[each]["image"])))) == raster).all()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model is opened")

    monkeypatch.setattr("diffugen_generator.stages.side_labelers.SideLabelers.__init__", refuse)
    greatest = max(line["scores"]["safety"] for line in lines.values())
    assert run(tmp_path, {"safety": {"model": str(folder), "max": greatest}})[0] == 0
    assert {line["reason"] for line in published(tmp_path)[1].values()} == {""}
    code, output = run(tmp_path, {"safety": {"model": str(folder), "max": -1}})
    assert code == 64
    assert "Unsafe 8" in output


@pytest.mark.usefixtures("shapes_model")
def test_a_checker_that_cannot_be_loaded_is_an_error_before_anything_is_drawn(tmp_path: Path) -> None:
    folder = tiny_detectors.safety_checker(tmp_path / "checker")
    weights = load_file(folder / "model.safetensors")
    del weights["concept_embeds"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    code, output = run(tmp_path, {"safety": {"model": str(folder)}})

    assert code == 64
    told = " ".join(output.split())
    assert "spec.quality.safety.model: the model" in told
    assert "weights are missing: concept_embeds; save it again, whole." in told
    assert not list((tmp_path / "out").rglob("*.png"))


def test_a_preprocessor_of_another_size_is_an_error(tmp_path: Path) -> None:
    folder = tiny_detectors.safety_checker(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}).save_pretrained(folder)

    with pytest.raises(SpecError, match="^spec.quality.safety.model: .* makes images of 48x48, and it takes 32x32"):
        checker_in(folder)


@pytest.mark.usefixtures("shapes_model")
def test_a_model_that_is_not_a_checker_is_an_error_before_anything_is_drawn(tmp_path: Path) -> None:
    folder = tiny_detectors.clip(tmp_path / "clip")

    code, output = run(tmp_path, {"safety": {"model": str(folder)}})

    assert code == 64
    assert "is a clip; what can be used here is: stable-diffusion-safety-checker." in " ".join(output.split())
    assert not list((tmp_path / "out").rglob("*.png"))


def test_given_images_are_checked_as_the_manifest_requests(tiny_model: ModelFolder, tmp_path: Path) -> None:
    folder = tiny_detectors.safety_checker(tmp_path / "checker")
    (tmp_path / "mine").mkdir()
    for number, raster in enumerate(some_images(4)):
        Image.fromarray(raster).save(tmp_path / "mine" / f"{number}.png")
    quality = {"minInstances": 0, "safety": {"model": str(folder), "max": 0.0}}
    like = LabeledDatasetSpec.model_validate(spec_data(tiny_model.uri, quality=quality))
    store, display = FolderStore(tmp_path / "out"), PlainDisplay(Console(file=io.StringIO()))

    label(
        "mine",
        spec_of(like=like, presence=0),
        FolderSource(tmp_path / "mine"),
        store,
        display,
        device="cpu",
        stop=Event(),
    )

    found = [labels.loads(store.read(key)) for key in store.list("labels/") if key.endswith(".json")]
    assert len(found) == 4
    assert all(-4 < each.scores["safety"] < 0 for each in found)
    assert store.exists(layout.CURRENT)


def test_bad_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="less than or equal to 1"):
        Safety(model="/m", max=1.5)
