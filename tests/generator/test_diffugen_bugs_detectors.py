"""What DiffuGen (504bc72) does wrong with labels and their files, each as a test of what happens here.

The numbers are those of the catalogue of its bugs: 7, scores that saturate and one class id for all; 8, the detector's
ids in place of the dataset's; 15, boxes with width and height exchanged in files that are never written; 19, blackened
images that are kept, masks that cover what they show, misspelt prompts; 20, pickled weights of a detector in the
repository.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from diffugen_api import layout
from diffugen_api.templates import Template
from diffugen_api.v1alpha1 import AttentionLabeling, DetectorLabeling, ObjectClass
from diffugen_generator.labeling.decide.from_detections import choose
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.evidence.detections import Detections
from diffugen_generator.labeling.evidence.image_statistics import statistics_of
from diffugen_generator.models.uris import BUILTIN_FOLDER
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.contact_sheet import with_labels
from diffugen_generator.publishing.publish import publish
from diffugen_generator.samples import labels
from diffugen_generator.samples.labels import Label
from diffugen_generator.store.folder import FolderStore
from tests.generator.made import (
    a_finished_store,
    a_model,
    an_instance,
    an_order,
    manifest_lines,
    objects_in,
    planned_shards,
    png,
)

ROOT = Path(__file__).parents[2]


def blob(peak: float, width: float, centre: int) -> NDArray[np.uint8]:
    """A map [64, 64] that falls off around a point, over a floor of 255 - peak."""
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    hill = np.exp(-((((x - centre) ** 2 + (y - 32) ** 2) / (2 * width**2)) ** 3))
    return np.round(255 * (peak * hill + (1 - peak) * hill.astype(np.float64) ** 0.2)).astype(np.uint8)


def test_bug_7_scores_tell_a_sharp_map_from_a_vague_one_and_stay_below_one() -> None:
    raster = np.zeros((64, 64, 3), np.uint8)
    plain = AttentionLabeling(snap=False)
    maps = {"sharp": blob(1.0, 10, 32), "vague": blob(0.2, 10, 32)}

    scores = {
        name: objects_in(AttentionMaps(("ball",), (), values[None]), raster, plain)[0].score
        for name, values in maps.items()
    }

    assert 0 < scores["vague"] < scores["sharp"] < 1


def test_bug_7_every_class_has_its_own_id_in_labels_from_attention(tmp_path: Path) -> None:
    order = an_order(a_model(tmp_path / "model"))
    store = a_finished_store(order, tmp_path / "store")
    publish(order, store)

    coco = json.loads(store.read(f"revisions/{order.revision}/coco/annotations/instances_train.json"))

    names = {each["id"]: each["name"] for each in coco["categories"]}
    used = {names[each["category_id"]] for each in coco["annotations"]}
    assert len(set(names)) == 4
    assert used == {"ball", "square", "triangle", "star"}


def test_bug_8_a_detection_gets_the_datasets_class_and_not_the_detectors_number() -> None:
    mask = np.ones((1, 8, 8), np.bool_)
    classes = [
        ObjectClass(name="piano"),
        ObjectClass.model_validate({"name": "sedan", "detectorClass": "car"}),
        ObjectClass.model_validate({"name": "suv", "detectorClass": "car"}),
    ]
    detector = DetectorLabeling(type="transformers", model="/models/coco")

    def found(native: str, prompt: str) -> list[str]:
        detections = Detections.of(mask, [native], [0.9])
        return [each.class_name for each in choose(detections, detector, classes, prompt)]

    assert found("piano", "a piano") == ["piano"], "a class need not be one of COCO's"
    assert found("car", "a red suv") == ["suv"]
    assert found("car", "a red sedan") == ["sedan"]
    assert found("person", "a red sedan") == []


def test_bug_15_files_are_written_with_classes_splits_and_boxes_the_right_way_round(tmp_path: Path) -> None:
    wide = np.zeros((64, 64), np.bool_)
    wide[30:38, 4:60] = True
    prompts = {"templates": ["a {object}"], "variables": {"object": ["ball", "star"]}, "samplesPerPrompt": 20}
    thirds = {"splits": {"train": 0.34, "val": 0.33, "test": 0.33}}
    order = an_order(a_model(tmp_path / "model"), prompts=prompts, output=thirds)
    store = FolderStore(tmp_path / "store")
    plan(order, store)
    label_all(order, store, np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), wide, blank=False)
    publish(order, store)

    folder = tmp_path / "store" / "revisions" / order.revision
    described = yaml.safe_load((folder / "yolo" / "data.yaml").read_text())
    assert list(described["names"].values()) == ["ball", "square", "triangle", "star"]
    for split in ("train", "val", "test"):
        assert (folder / "yolo" / described[split]).is_dir()
        coco = json.loads((folder / "coco" / "annotations" / f"instances_{split}.json").read_text())
        assert {tuple(each["bbox"]) for each in coco["annotations"]} == {(4, 30, 56, 8)}
    (line, *_) = next((folder / "yolo" / "labels" / "train").iterdir()).read_text().splitlines()
    points = np.array(line.split()[1:], float).reshape(-1, 2) * 64
    np.testing.assert_allclose(points.min(axis=0), [4, 30], atol=1)
    np.testing.assert_allclose(points.max(axis=0), [60, 38], atol=1)


def label_all(
    order: Any, store: FolderStore, raster: NDArray[np.uint8], mask: NDArray[np.bool_], *, blank: bool
) -> None:
    """Do a plan by hand: one image and one label for all samples; the first one's image black, if asked for."""
    for header, rows in planned_shards(order, store):
        for number, row in enumerate(rows):
            shown = np.zeros_like(raster) if blank and number == 0 else raster
            own = row.sample
            statistics = statistics_of(shown).row()
            label = Label(own.id, (an_instance(own.variables["object"], mask),), statistics=statistics)
            store.write(layout.image(header.stage, own.id, "png"), png(shown))
            store.write(layout.recipe(header.stage, own.id), b"{}")
            store.write(layout.label(header.stage, header.label_id, own.id), labels.dumps_label(label))


def test_bug_19_a_blackened_image_is_not_published_whatever_is_labeled_in_it(tmp_path: Path) -> None:
    order = an_order(a_model(tmp_path / "model"))
    store = FolderStore(tmp_path / "store")
    plan(order, store)
    raster = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), np.bool_)
    mask[20:40, 20:40] = True
    label_all(order, store, raster, mask, blank=True)

    publish(order, store)

    lines = manifest_lines(store, order.revision)
    rejected = [line for line in lines if not line["accepted"]]
    assert [line["reason"] for line in rejected] == ["BlankPicture"]
    assert rejected[0]["looks"]["deviation"] == 0, "it stays in the manifest, with what it is rejected for"
    assert not list((tmp_path / "store" / "revisions" / order.revision).rglob(f"{rejected[0]['id']}.png"))


def test_bug_19_a_drawn_mask_lets_the_image_through() -> None:
    raster = np.zeros((64, 64, 3), np.uint8)
    raster[:, 32:] = 200
    mask = np.zeros((64, 64), np.bool_)
    mask[8:56, 8:56] = True

    shown = np.asarray(with_labels(raster, [an_instance("ball", mask)], lambda _: (255, 0, 0), (64, 64)))

    left, right = shown[32, 20].astype(int), shown[32, 44].astype(int)
    assert (right - left).min() > 60, "what lies under the mask is told apart"
    assert left[0] > left[1], "and the mask is seen"


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda file: file.name)
def test_bug_19_every_word_of_an_example_is_one_that_its_model_knows(file: Path) -> None:
    known = json.loads((BUILTIN_FOLDER / "shapes" / "tokenizer" / "vocab.json").read_text())
    for document in yaml.safe_load_all(file.read_text()):
        if not document or document["kind"] != "LabeledDataset":
            continue
        prompts = document["spec"]["prompts"]
        texts = [re.sub(r"{\w+}", " ", text) for text in prompts["templates"]]
        named = {field for text in prompts["templates"] for field in Template.parse(text).fields}
        texts += [value for name in named for value in prompts["variables"][name]]

        words = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}

        assert {word for word in words if f"{word}</w>" not in known} == set()


def test_bug_20_no_pickled_weights_are_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert listed
    assert [name for name in listed if Path(name).suffix in (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".onnx")] == []


def test_bug_20_a_pickled_detector_is_refused_without_a_pin() -> None:
    with pytest.raises(ValidationError, match="runs code when it is loaded: pin it by sha256"):
        DetectorLabeling(type="yolo", model="/models/yolov8l-seg.pt")
