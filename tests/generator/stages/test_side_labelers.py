"""A stage with a detector, from plan to publication: which edits run a model, and which only use stored evidence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from diffugen_api import layout
from diffugen_api.contract import StagePlan
from diffugen_api.orders import WorkOrder
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.labeling.evidence.detections import Detections
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.publish import publish
from diffugen_generator.samples import labels
from diffugen_generator.samples.shards import EVIDENCE_IDS_KEY, read_shard
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.stages.side_labelers import SideLabelers
from diffugen_generator.store.folder import FolderStore
from tests.generator import tiny_detectors
from tests.generator.made import an_order, manifest_lines

DETECTOR = {"type": "transformers", "model": "builtin://shapes-segmenter"}
PROMPTS = {
    "templates": ["a {color} {object} on snow"],
    "variables": {"object": ["ball", "star"], "color": ["red", "blue"]},
}


def order_of(model: str | None, labeling: dict[str, Any], **quality: Any) -> WorkOrder:
    assert model is not None
    return an_order(model, prompts=PROMPTS, labeling=labeling, quality={"minInstances": 0, **quality})


def done(order: WorkOrder, store: FolderStore) -> StagePlan:
    """Plan, and execute the plan; return it."""
    (found,) = plan(order, store).plan or []
    for index in range(found.shards):
        run_shard(*read_shard(store, layout.shard(order.revision, "base", index)), store, device="cpu")
    return found


def stored_labels(store: FolderStore, order: WorkOrder) -> list[labels.Label]:
    summary = json.loads(store.read(layout.plan_summary(order.revision)))
    folder = layout.labels_folder("base", summary["stages"][0]["labelId"])
    return [labels.loads(store.read(key)) for key in sorted(store.list(folder))]


@pytest.fixture(scope="module")
def model(shapes_model: ModelFolder) -> str:
    return shapes_model.uri


@pytest.fixture(scope="module")
def both(model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[WorkOrder, FolderStore]:
    """Four images, labeled by attention and by the detector; don't change the store."""
    order = order_of(model, {"attention": {}, "detector": DETECTOR})
    store = FolderStore(tmp_path_factory.mktemp("both"))
    done(order, store)
    return order, store


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a model is opened")

    monkeypatch.setattr(SideLabelers, "__init__", refuse)


def test_with_both_labelers_common_objects_are_kept_with_all_scores(both: tuple[WorkOrder, FolderStore]) -> None:
    order, store = both

    found = stored_labels(store, order)

    assert len(found) == 4
    standing = [each for label in found for each in label.instances]
    assert len(standing) >= 3
    assert all(set(each.scores) == {"detector", "attention", "iou"} for each in standing)
    assert all(each.scores["iou"] >= 0.5 and each.score == each.scores["detector"] for each in standing)
    assert all(set(label.statistics) == {"deviation", "hash"} for label in found)


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize(
    "labeling",
    [
        {"attention": {}, "detector": {**DETECTOR, "confidence": 0.99}},
        {"attention": {}, "detector": {**DETECTOR, "iou": 0.1}},
        {"attention": {}, "detector": DETECTOR, "agreement": 0.97},
        {"detector": DETECTOR},
        {"attention": {"threshold": 0.6}},
    ],
)
def test_thresholds_and_the_choice_of_labelers_run_no_model(
    both: tuple[WorkOrder, FolderStore], labeling: dict[str, Any]
) -> None:
    order = order_of(both[0].spec.stages[0].task.model, labeling)

    found = done(order, both[1])

    assert (found.draw, found.relabel, found.gpu) == (0, 4, False)
    assert len(stored_labels(both[1], order)) == 4


def test_objects_of_only_one_labeler_are_marked_and_not_published(both: tuple[WorkOrder, FolderStore]) -> None:
    strict = order_of(both[0].spec.stages[0].task.model, {"attention": {}, "detector": DETECTOR, "agreement": 1})
    done(strict, both[1])

    publish_or_nothing = [label.instances for label in stored_labels(both[1], strict)]
    marked = [each for label in stored_labels(both[1], strict) for each in label.marked]

    assert sum(len(each) for each in publish_or_nothing) == 0
    assert {each.by for each in marked} == {"attention", "detector"}
    assert "OverlapTooSmall" in {each.reason for each in marked}
    publish(strict, both[1])
    lines = manifest_lines(both[1], strict.revision)
    assert sum(len(line["marked"]) for line in lines) == len(marked)
    assert all(line["instances"] == [] for line in lines)


def test_an_added_detector_uses_stored_images_and_loads_no_diffusion_model(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    done(order_of(model, {"attention": {}}), store)
    monkeypatch.setattr("diffugen_generator.stages.session_cache.SessionCache.open", None)

    order = order_of(model, {"attention": {}, "detector": DETECTOR})
    found = done(order, store)

    assert (found.draw, found.relabel, found.gpu) == (0, 4, True)
    assert sum(len(label.instances) for label in stored_labels(store, order)) >= 3


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize(
    "quality",
    [{"duplicates": {"maxDistance": 6}}, {"minBorderDistance": 3}, {"minAreaFraction": 0.1}, {"minInstances": 2}],
)
def test_quality_rules_are_applied_to_labels_without_running_a_stage(
    both: tuple[WorkOrder, FolderStore], quality: dict[str, Any]
) -> None:
    order = order_of(both[0].spec.stages[0].task.model, {"attention": {}, "detector": DETECTOR}, **quality)

    found = done(order, both[1])

    assert (found.total, found.reused, found.shards, found.gpu) == (4, 4, 0, False)


def test_all_duplicates_but_the_first_are_rejected_and_name_the_original(
    both: tuple[WorkOrder, FolderStore], tmp_path: Path
) -> None:
    quality = {"duplicates": {"maxDistance": 10}}
    order = order_of(both[0].spec.stages[0].task.model, {"attention": {}, "detector": DETECTOR}, **quality)
    store = FolderStore(Path(shutil.copytree(both[1].root, tmp_path / "store")))
    done(order, store)
    for key in list(store.list("labels/base/")):  # all images look alike
        label = json.loads(store.read(key))
        del label["checksum"]
        store.write(key, json.dumps({**label, "looks": {"deviation": 50.0, "hash": "0f" * 8}}).encode())

    publish(order, store)

    lines = sorted(manifest_lines(store, order.revision), key=lambda line: line["id"])
    assert [line["reason"] for line in lines] == ["", "Duplicate", "Duplicate", "Duplicate"]
    assert {line["duplicateOf"] for line in lines[1:]} == {lines[0]["id"]}
    assert all(line["looks"]["hash"] == "0f" * 8 for line in lines)


def test_a_detector_alone_labels_without_attention(model: str, tmp_path: Path) -> None:
    order = order_of(model, {"detector": DETECTOR})
    store = FolderStore(tmp_path)

    done(order, store)

    summary = json.loads(store.read(layout.plan_summary(order.revision)))["stages"][0]
    assert summary["evidenceId"] == ""
    kept = sorted(store.list("evidence/"))
    assert len(kept) == 4
    assert all(summary[EVIDENCE_IDS_KEY]["detector"] in key for key in kept)
    assert all(Detections.loads(store.read(key)).size == (64, 64) for key in kept)
    assert sum(len(label.instances) for label in stored_labels(store, order)) >= 3


def test_a_clip_score_is_evidence_and_its_threshold_is_not(model: str, tmp_path: Path) -> None:
    clip = str(tiny_detectors.clip(tmp_path / "clip"))
    store = FolderStore(tmp_path / "store")
    done(order_of(model, {"attention": {}}, clipScore={"model": clip, "min": -1}), store)

    order = order_of(model, {"attention": {}}, clipScore={"model": clip, "min": 1}, minInstances=0)
    found = done(order, store)

    assert (found.reused, found.shards, found.gpu) == (4, 0, False)
    scores = [label.scores["clip"] for label in stored_labels(store, order)]
    assert all(-1 < score < 1 for score in scores)
    with pytest.raises(Exception, match="BelowClipScore 4"):
        publish(order, store)


def test_an_added_safety_checker_runs_alone_on_a_gpu_and_another_limit_runs_no_model(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safety = {"model": str(tiny_detectors.safety_checker(tmp_path / "checker"))}
    store = FolderStore(tmp_path / "store")
    done(order_of(model, {"attention": {}}), store)
    monkeypatch.setattr("diffugen_generator.labeling.attention.posthoc.PosthocAttention.look", None)

    order = order_of(model, {"attention": {}}, safety=safety)
    found = done(order, store)

    assert (found.draw, found.relabel, found.gpu) == (0, 4, True)
    assert all(set(label.scores) == {"safety"} for label in stored_labels(store, order))
    (edited,) = plan(order_of(model, {"attention": {}}, safety={**safety, "max": 0.1}), store).plan or []
    assert (edited.reused, edited.shards, edited.gpu) == (4, 0, False)


def test_broken_evidence_is_named_and_made_again(model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = FolderStore(tmp_path)
    done(order_of(model, {"detector": DETECTOR}), store)
    before = {key: store.read(key) for key in store.list("evidence/")}
    for key in before:
        store.write(key, b"nonsense")

    done(order_of(model, {"detector": {**DETECTOR, "confidence": 0.5}}), store)

    assert "not a file of detections" in caplog.text
    assert {key: store.read(key) for key in before} == before
