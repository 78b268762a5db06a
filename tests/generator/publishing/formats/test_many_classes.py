"""A dataset of 2,000 classes in every format that can hold them, read back with each format's own reader."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from diffugen_generator.publishing.labeled_samples import LabeledSample
from tests.generator.publishing.hand_made import CLASSES, HandMade, hand_made

BEFORE = tuple(f"thing {number}" for number in range(2000 - len(CLASSES)))
IDS = {name: len(BEFORE) + number for number, name in enumerate(CLASSES)}
FORMATS = ("coco", "yolo", "masks", "huggingface", "webdataset", "imagefolder")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    return hand_made(tmp_path_factory.mktemp("many"), *FORMATS, before=BEFORE)


def labeled(made: HandMade) -> Iterator[LabeledSample]:
    """The samples with objects, those of one object first."""
    return iter(sorted(made.of("train"), key=lambda each: len(each.verdict.instances) or 99))


def test_masks_have_sixteen_bits(made: HandMade) -> None:
    folder = made.folder / "masks"
    names = json.loads((folder / "classes.json").read_text())
    seen = set()

    assert names["ignore"] == 65535
    assert {name: names["classes"][name] for name in CLASSES} == {name: number + 1 for name, number in IDS.items()}
    for sample in made.of("train"):
        path = folder / "classes" / "train" / f"{sample.sample.id}.png"
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert values is not None
        assert values.dtype == np.uint16
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), values)
        present = {IDS[each.class_name] + 1 for each in sample.verdict.instances}
        ignored = {65535} if sample.label.ignored else set()
        assert set(np.unique(values).tolist()) == {0, *present, *ignored}
        seen |= present | ignored
    assert {65535, 2000} <= seen


def test_coco_and_yolo_have_the_class_ids(made: HandMade) -> None:
    coco = COCO(str(made.folder / "coco" / "annotations" / "instances_train.json"))
    names = yaml.safe_load((made.folder / "yolo" / "data.yaml").read_text())["names"]
    found = {coco.cats[each["category_id"]]["name"] for each in coco.anns.values()}

    assert len(coco.cats) == len(names) == 2000
    assert found == {each.class_name for sample in made.of("train") for each in sample.verdict.instances}
    for sample in made.of("train"):
        lines = (made.folder / "yolo" / "labels" / "train" / f"{sample.sample.id}.txt").read_text().splitlines()
        ids = {int(line.split()[0]) for line in lines}
        assert {names[number] for number in ids} == {each.class_name for each in sample.verdict.instances}


def test_hugging_face_names_the_class_ids(made: HandMade, tmp_path: Path) -> None:
    from datasets import load_dataset

    rows = load_dataset(str(made.folder / "huggingface"), split="train", cache_dir=str(tmp_path))
    label = rows.features["objects"]["category"].feature

    assert len(label.names) == 2000
    named = {row["id"]: [label.int2str(number) for number in row["objects"]["category"]] for row in rows}
    assert named == {each.sample.id: [one.class_name for one in each.verdict.instances] for each in made.of("train")}


def test_the_other_files_have_them_too(made: HandMade) -> None:
    dataset = json.loads((made.folder / "dataset.json").read_text())
    report = (made.folder / "report" / "summary.js").read_text()
    card = (made.folder / "README.md").read_text()
    tar = next((made.folder / "webdataset").rglob("*.tar"))

    assert len(dataset["classes"]) == 2000
    assert CLASSES[-1] in report
    assert f"| {CLASSES[-1]} | 1999 |" in card
    with tarfile.open(tar) as file:
        assert any(name.endswith(".json") for name in file.getnames())
    with gzip.open(made.folder / "manifest.jsonl.gz", "rt") as lines:
        assert sum(1 for _ in lines) == len(made.samples)
    folders = {path.name for path in (made.folder / "imagefolder" / "train").iterdir() if path.is_dir()}
    assert folders <= set(CLASSES)
    assert folders
