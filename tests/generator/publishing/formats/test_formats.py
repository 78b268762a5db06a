"""The published files, read by pycocotools, a YOLO reader and a JSON reader; and the contact sheet."""

import gzip
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from diffugen_api.orders import WorkOrder
from diffugen_generator.publishing.polygons import filled, overlap
from diffugen_generator.publishing.publish import publish
from diffugen_generator.store.folder import FolderStore
from generator.training import scenes
from tests.generator.made import a_finished_store, a_model, an_order, manifest_lines

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> WorkOrder:
    model = a_model(tmp_path_factory.mktemp("model"))
    return an_order(
        model,
        prompts={
            "templates": ["a {color} {object} on {place}"],
            "variables": {"object": list(scenes.CLASSES), "color": ["red", "blue"], "place": ["snow", "sand"]},
            "samplesPerPrompt": 3,
        },
        # some images have only one object and are rejected
        quality={"minInstances": 2},
        output={"splits": {"train": 0.6, "val": 0.2, "test": 0.2}},
    )


@pytest.fixture(scope="module")
def store(order: WorkOrder, tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    finished = a_finished_store(order, tmp_path_factory.mktemp("store"))
    publish(order, finished)
    return finished


@pytest.fixture(scope="module")
def folder(order: WorkOrder, store: FolderStore) -> Path:
    return store.root / "revisions" / order.revision


def test_every_sample_has_a_line_in_the_manifest(order: WorkOrder, store: FolderStore) -> None:
    lines = manifest_lines(store, order.revision)

    assert len(lines) == 48
    assert len({line["id"] for line in lines}) == 48
    assert {line["reason"] for line in lines if not line["accepted"]} == {"TooFewInstances"}
    assert {line["reason"] for line in lines if line["accepted"]} == {""}
    first = lines[0]
    assert first["prompt"] == "a red ball on snow"
    assert first["variables"] == {"object": "ball", "color": "red", "place": "snow"}
    assert (first["stage"], first["template"], first["width"], first["height"]) == ("base", 0, 64, 64)
    assert store.exists(first["image"])
    recipe = first["drawing"]
    assert (recipe["settings"]["steps"], recipe["settings"]["guidanceScale"], recipe["kind"]) == (20, 3, "txt2img")
    assert recipe["model"] == json.loads(store.read(f"plans/{order.revision}/plan.json"))["stages"][0]["modelDigest"]
    assert {line["split"] for line in lines} == set(SPLITS)


def test_every_file_has_its_digest(folder: Path) -> None:
    dataset = json.loads((folder / "dataset.json").read_text())

    for path, file in dataset["files"].items():
        digest = file["sha256"]
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(dataset["files"]) == there - {"dataset.json"}


def test_the_counts_agree(order: WorkOrder, store: FolderStore, folder: Path) -> None:
    dataset = json.loads((folder / "dataset.json").read_text())
    lines = manifest_lines(store, order.revision)
    accepted = [line for line in lines if line["accepted"]]

    assert dataset["samples"] == len(accepted)
    assert dataset["rejected"] == len(lines) - len(accepted)
    assert dataset["instances"] == sum(len(line["instances"]) for line in accepted)
    assert sum(dataset["splits"].values()) == len(accepted)
    assert sum(sum(splits.values()) for splits in dataset["classes"].values()) == dataset["instances"]
    assert dataset["classIds"] == {"ball": 0, "square": 1, "triangle": 2, "star": 3}
    assert "run" not in dataset["spec"]


@pytest.mark.parametrize("split", SPLITS)
def test_pycocotools_reads_the_labels(order: WorkOrder, store: FolderStore, folder: Path, split: str) -> None:
    coco = COCO(folder / "coco" / "annotations" / f"instances_{split}.json")
    lines = [line for line in manifest_lines(store, order.revision) if line["accepted"] and line["split"] == split]

    assert [category["name"] for category in coco.loadCats([1, 2, 3, 4])] == list(scenes.CLASSES)
    images = coco.loadImgs(sorted(coco.getImgIds()))
    assert [image["file_name"] for image in images] == [f"{line['id']}.png" for line in lines]
    for image, line in zip(images, lines, strict=True):
        with Image.open(folder / "coco" / split / image["file_name"]) as raster:
            assert raster.size == (image["width"], image["height"])
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert [scenes.CLASSES[a["category_id"] - 1] for a in annotations] == [i["class"] for i in line["instances"]]
        for annotation in annotations:
            mask = coco.annToMask(annotation)
            x, y, width, height = (int(side) for side in annotation["bbox"])
            assert mask.sum() == annotation["area"] == mask[y : y + height, x : x + width].sum()
            assert annotation["iscrowd"] == 0


def test_masks_are_read_back_from_yolo_polygons(order: WorkOrder, store: FolderStore, folder: Path) -> None:
    index = yaml.safe_load((folder / "yolo" / "data.yaml").read_text())
    coco = {split: COCO(folder / "coco" / "annotations" / f"instances_{split}.json") for split in SPLITS}

    assert index["names"] == dict(enumerate(scenes.CLASSES))
    for split in SPLITS:
        rasters = sorted((folder / "yolo" / index[split]).iterdir())
        labels = sorted((folder / "yolo" / "labels" / split).iterdir())
        assert [path.stem for path in rasters] == [path.stem for path in labels]
        by_name = {image["file_name"]: image["id"] for image in coco[split].imgs.values()}
        for raster, label in zip(rasters, labels, strict=True):
            annotations = coco[split].loadAnns(coco[split].getAnnIds(imgIds=by_name[raster.name]))
            for line, annotation in zip(label.read_text().splitlines(), annotations, strict=True):
                number, *values = line.split()
                polygon = np.array(values, np.float64).reshape(-1, 2)
                assert int(number) == annotation["category_id"] - 1
                assert polygon.min() > 0
                assert polygon.max() < 1
                mask = coco[split].annToMask(annotation).astype(np.bool_)
                assert overlap(filled(polygon * 64, 64, 64), mask) >= 0.95


def test_only_accepted_images_are_in_the_formats(order: WorkOrder, store: FolderStore, folder: Path) -> None:
    lines = manifest_lines(store, order.revision)
    accepted = {line["id"] for line in lines if line["accepted"]}

    assert 0 < len(accepted) < len(lines)
    assert {path.stem for path in folder.glob("coco/*/*.png")} == accepted
    assert {path.stem for path in folder.glob("yolo/images/*/*.png")} == accepted


def test_the_contact_sheet_is_an_image(folder: Path) -> None:
    with Image.open(folder / "contact-sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 1500
        assert len(sheet.getcolors(1 << 24) or []) > 1000


def test_the_card_describes_the_dataset(order: WorkOrder, folder: Path) -> None:
    card = (folder / "README.md").read_text()

    for words in ("# shapes", order.revision, "| ball | 0 |", "`a {color} {object} on {place}`", "TooFewInstances"):
        assert words in card
    assert "![shapes](contact-sheet.png)" in card


def test_negatives_have_empty_label_files(tmp_path: Path) -> None:
    order = an_order(
        a_model(tmp_path / "model"), quality={"minInstances": 0, "minAreaFraction": 1, "maxAreaFraction": 1}
    )
    store = a_finished_store(order, tmp_path / "store")

    outcome = publish(order, store)

    assert outcome.published
    assert (outcome.published.samples, outcome.published.instances) == (16, 0)
    labels = list(store.root.glob("revisions/*/yolo/labels/*/*.txt"))
    assert len(labels) == 16
    assert all(path.read_bytes() == b"" for path in labels)
    for split in SPLITS:
        coco = json.loads(store.read(f"revisions/{order.revision}/coco/annotations/instances_{split}.json"))
        assert coco["annotations"] == []


def test_only_the_requested_formats_are_written(tmp_path: Path) -> None:
    order = an_order(a_model(tmp_path / "model"), output={"formats": ["yolo"], "splits": {"train": 1}})
    store = a_finished_store(order, tmp_path / "store")

    publish(order, store)

    names = {path.name for path in (store.root / "revisions" / order.revision).iterdir()}
    assert names == {
        "README.md",
        "addresses.json",
        "contact-sheet.png",
        "croissant.json",
        "dataset.json",
        "manifest.jsonl.gz",
        "report",
        "report.html",
        "yolo",
    }
    index = yaml.safe_load(store.read(f"revisions/{order.revision}/yolo/data.yaml"))
    # Ultralytics refuses a file without `val`
    assert (index["train"], index["val"]) == ("images/train", "images/train")
    assert "test" not in index


def test_other_image_formats_keep_their_file_names(tmp_path: Path) -> None:
    order = an_order(a_model(tmp_path / "model"), image={"width": 64, "height": 64, "format": "jpeg"})
    store = a_finished_store(order, tmp_path / "store")

    publish(order, store)

    assert len(list(store.root.glob("revisions/*/coco/*/*.jpeg"))) == 16


def test_the_manifest_is_plain_gzip(order: WorkOrder, store: FolderStore) -> None:
    data = store.read(f"revisions/{order.revision}/manifest.jsonl.gz")

    assert data[4:8] == b"\0\0\0\0", "no time in it"
    assert gzip.GzipFile(fileobj=io.BytesIO(data)).read().count(b"\n") == 48
