"""A score that exists only in this test: added with its settings, its `ScoreKind`, its model and its registry entry."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import revision_of
from diffugen_api.recipes import CLIP, DETECTOR, SAFETY, SCORES, ScoreKind
from diffugen_api.v1alpha1 import ImageScore, LabeledDatasetSpec, Quality
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.labeling.evidence.scores import Score
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.labeling.side_model_registry import SIDE_MODELS, SideModelKind
from diffugen_generator.models.side_models import SideModel
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.publish import publish
from diffugen_generator.samples import labels
from diffugen_generator.samples.shards import read_shard
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.store.folder import FolderStore
from tests.generator.made import manifest_lines, spec_data

KIND = "brightness"
PROMPTS = {
    "templates": ["a {color} ball on snow"],
    "variables": {"color": ["red", "blue", "green", "black"]},
}


class BrightnessScore(ImageScore):
    """Settings of the score."""

    min: float = 0


class QualityWithBrightness(Quality):
    """`quality` with the field of the score."""

    brightness: BrightnessScore | None = None


class SpecWithBrightness(LabeledDatasetSpec):
    """A spec with the field of the score."""

    quality: QualityWithBrightness = QualityWithBrightness()


class OrderWithBrightness(WorkOrder):
    """A work order of such a spec."""

    spec: SpecWithBrightness


class Brightness(Score):
    """The mean of an image's values, in 0..255."""

    entry = KIND


class BrightnessModel:
    """The labeler."""

    def look(self, seen: Sequence[LabelInput]) -> list[Brightness]:
        return [Brightness(float(each.image.mean())) for each in seen]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Registers the score; lists the URIs of the models that are opened."""
    uris: list[str] = []

    def find(settings: Any, _s3: object, _weights: bool) -> dict[str, SideModel]:
        return {KIND: SideModel(f"{settings.model}@1", "spec.quality.brightness.model", Path(), "b" * 64, KIND)}

    def open_model(settings: Any, side_models: Any, _classes: object, _device: object) -> BrightnessModel:
        assert side_models[KIND].digest == "b" * 64
        uris.append(settings.model)
        return BrightnessModel()

    monkeypatch.setitem(SCORES, KIND, ScoreKind("brightness", BrightnessScore, 1))
    monkeypatch.setitem(
        SIDE_MODELS,
        KIND,
        SideModelKind(find, open_model, Brightness.loads, "TooDark", lambda settings, value: value < settings.min),
    )
    return uris


def order_of(model: str, least: float) -> OrderWithBrightness:
    quality = {"minInstances": 0, "brightness": {"model": "hf://org/brightness", "min": least}}
    spec = SpecWithBrightness.model_validate(spec_data(model, prompts=PROMPTS, quality=quality))
    return OrderWithBrightness(namespace="vision", name="shapes", revision=revision_of(spec), spec=spec)


def run(order: WorkOrder, store: FolderStore) -> tuple[int, int]:
    """Plan and run; return how many images were drawn and how many labeled again."""
    (found,) = plan(order, store).plan or []
    for index in range(found.shards):
        run_shard(*read_shard(store, layout.shard(order.revision, "base", index)), store, device="cpu")
    return found.draw, found.relabel


def label_id(order: WorkOrder, store: FolderStore) -> str:
    (stage,) = json.loads(store.read(layout.plan_summary(order.revision)))["stages"]
    return str(stage["labelId"])


def test_a_registered_score_is_planned_measured_stored_and_applied(
    shapes_model: ModelFolder, tmp_path: Path, opened: list[str]
) -> None:
    store = FolderStore(tmp_path)
    first = order_of(shapes_model.uri, 0)
    assert run(first, store) == (4, 0)
    stored = [labels.loads(store.read(key)) for key in store.list(layout.labels_folder("base", label_id(first, store)))]
    values = sorted(label.scores[KIND] for label in stored)
    assert len(set(values)) == 4
    assert opened == ["hf://org/brightness@1"]  # the URI in the plan

    stricter = order_of(shapes_model.uri, (values[1] + values[2]) / 2)
    assert run(stricter, store) == (0, 0)  # a threshold of quality runs nothing
    publish(stricter, store)

    lines = manifest_lines(store, stricter.revision)
    reasons = [line.get("reason", "") for line in lines]
    assert sorted(reasons) == ["", "", "TooDark", "TooDark"]
    (readme,) = tmp_path.glob("**/README.md")
    assert "| brightness | `hf://org/brightness` | `bbbbbbbbbbbbbbbb…` |" in readme.read_text()


def test_each_score_of_the_api_has_an_entry_with_a_reason() -> None:
    assert list(SIDE_MODELS) == [DETECTOR, CLIP, SAFETY]
    assert set(SCORES) == {CLIP, SAFETY}
    assert {kind: SIDE_MODELS[kind].reason for kind in SCORES} == {CLIP: "BelowClipScore", SAFETY: "Unsafe"}


def test_the_registry_imports_no_torch() -> None:
    code = (
        "import sys, diffugen_generator.labeling.findings, diffugen_generator.labeling.side_model_registry;"
        "assert not {'torch', 'transformers', 'diffusers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
