"""Published files have the right classes, splits and boxes, and no blackened images."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from diffugen_api import layout
from diffugen_api.templates import Template
from diffugen_generator.labeling.evidence.image_statistics import statistics_of
from diffugen_generator.models.uris import BUILTIN_FOLDER
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.contact_sheet import with_labels
from diffugen_generator.publishing.publish import publish
from diffugen_generator.samples import labels
from diffugen_generator.samples.labels import Label
from diffugen_generator.store.folder import FolderStore
from tests.generator.made import (
    a_model,
    an_instance,
    an_order,
    manifest_lines,
    planned_shards,
    png,
)

ROOT = Path(__file__).parents[3]


# fault 15 of DiffuGen's catalog
def test_files_have_the_right_classes_splits_and_boxes(tmp_path: Path) -> None:
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
    """Execute a plan without a model: one image and one label for all samples; the first image is black if asked."""
    for header, rows in planned_shards(order, store):
        for number, row in enumerate(rows):
            shown = np.zeros_like(raster) if blank and number == 0 else raster
            own = row.sample
            statistics = statistics_of(shown).row()
            label = Label(own.id, (an_instance(own.variables["object"], mask),), statistics=statistics)
            store.write(layout.image(header.stage, own.id, "png"), png(shown))
            store.write(layout.recipe(header.stage, own.id), b"{}")
            store.write(layout.label(header.stage, header.label_id, own.id), labels.dumps_label(label))


# fault 19 of DiffuGen's catalog
def test_a_blackened_image_is_not_published_with_any_labels(tmp_path: Path) -> None:
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


# fault 19 of DiffuGen's catalog
def test_the_image_is_visible_under_a_drawn_mask() -> None:
    raster = np.zeros((64, 64, 3), np.uint8)
    raster[:, 32:] = 200
    mask = np.zeros((64, 64), np.bool_)
    mask[8:56, 8:56] = True

    shown = np.asarray(with_labels(raster, [an_instance("ball", mask)], lambda _: (255, 0, 0), (64, 64)))

    left, right = shown[32, 20].astype(int), shown[32, 44].astype(int)
    assert (right - left).min() > 60, "the image under the mask stays visible"
    assert left[0] > left[1], "and the mask is seen"


# fault 19 of DiffuGen's catalog
@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda file: file.name)
def test_the_built_in_model_knows_every_word_of_the_examples_that_use_it(file: Path) -> None:
    known = json.loads((BUILTIN_FOLDER / "shapes" / "tokenizer" / "vocab.json").read_text())
    for document in yaml.safe_load_all(file.read_text()):
        if not document or document["kind"] != "LabeledDataset":
            continue
        tasks = [task for stage in document["spec"]["stages"] for task in stage.values() if isinstance(task, dict)]
        if any(not task.get("model", "builtin://").startswith("builtin://") for task in tasks):
            continue
        prompts = document["spec"]["prompts"]
        texts = [re.sub(r"{\w+}", " ", text) for text in prompts["templates"]]
        named = {field for text in prompts["templates"] for field in Template.parse(text).fields}
        texts += [value for name in named for value in prompts["variables"][name]]

        words = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}

        assert {word for word in words if f"{word}</w>" not in known} == set()
