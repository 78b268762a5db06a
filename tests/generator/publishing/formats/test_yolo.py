"""YOLO boxes and polygons, read with supervision and Ultralytics."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from diffugen_api.v1alpha1.prompts import NAME_PATTERN
from diffugen_generator.labeling.detectors.yolo import import_ultralytics
from diffugen_generator.publishing.formats.yolo import data_yaml
from diffugen_generator.publishing.publish import publish
from tests.generator.made import a_finished_store, a_model, an_order
from tests.generator.publishing.hand_made import CLASSES, HandMade, assert_box, hand_made, iou
from tests.generator.yolo_weights import quiet

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module", params=["detect", "segment"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    return hand_made(tmp_path_factory.mktemp("yolo"), "yolo", yolo={"task": request.param})


def task_of(made: HandMade) -> str:
    assert made.order.spec.output.yolo
    return made.order.spec.output.yolo.task


@pytest.mark.parametrize("split", SPLITS)
def test_supervision_reads_the_boxes(made: HandMade, split: str) -> None:
    yolo = made.folder / "yolo"
    import supervision as sv

    dataset = sv.DetectionDataset.from_yolo(
        str(yolo / "images" / split), str(yolo / "labels" / split), str(yolo / "data.yaml")
    )

    assert list(dataset.classes) == list(CLASSES)
    found = {Path(path).name: detections for path, _, detections in dataset}
    assert set(found) == {each.file_name for each in made.of(split)}
    for sample in made.of(split):
        detections = found[sample.file_name]
        assert len(detections) == len(sample.verdict.instances)
        for number, instance in enumerate(sample.verdict.instances):
            assert detections.class_id is not None
            assert CLASSES[int(detections.class_id[number])] == instance.class_name
            assert_box(detections.xyxy[number].tolist(), instance, corners=True)


@pytest.mark.parametrize("split", SPLITS)
def test_ultralytics_reads_boxes_and_masks(
    made: HandMade, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", os.fspath(tmp_path))
    import_ultralytics()  # a plain import would replace PIL's Image.open for the whole process
    from ultralytics.data import YOLODataset
    from ultralytics.data.utils import check_det_dataset, polygon2mask

    task = task_of(made)
    data: dict[str, Any] = check_det_dataset(str(made.folder / "yolo" / "data.yaml"), autodownload=False)
    dataset = YOLODataset(img_path=data[split], data=data, task=task, augment=False, imgsz=64)

    assert data["names"] == dict(enumerate(CLASSES))
    found = {Path(label["im_file"]).name: label for label in dataset.labels}
    assert set(found) == {each.file_name for each in made.of(split)}
    for sample in made.of(split):
        label, instances, size = found[sample.file_name], sample.verdict.instances, (sample.width, sample.height)
        assert [CLASSES[int(kind)] for kind in label["cls"].ravel()] == [each.class_name for each in instances]
        for box, instance in zip(label["bboxes"], instances, strict=True):
            x, y, width, height = box * np.tile(size, 2)
            assert_box([x - width / 2, y - height / 2, width, height], instance)
        assert len(label["segments"]) == (len(instances) if task == "segment" else 0)
        for polygon, instance in zip(label["segments"], instances, strict=False):
            mask = polygon2mask((sample.height, sample.width), [(polygon * size).ravel()]).astype(np.bool_)
            assert iou(mask, instance.segmentation.mask()) >= 0.95


NAMES = (
    *("ball", "信号機", "светофор", "إشارة", "𠮷", "𠮷野家", "🛰", "👩‍🚀 emoji 🚦"),
    *("\U0010ffff", "\ufffe\uffff", "\ufeffa", "a\u2028b\u2029c", "a\xa0b", "e\u0301"),
    *(
        '"',
        "'",
        "\\",
        "\\ud842\\udfb7",
        "#",
        "a: b",
        "- a",
        "a #b",
        "{a}",
        "no",
        "null",
        "1",
        "~",
        "word " * 12 + "end",
    ),
)
"""Names that the API allows and that a writer or reader of YAML can change."""


def test_pyyaml_reads_the_names_as_they_are() -> None:
    assert all(re.match(NAME_PATTERN, name) and len(name) <= 63 for name in NAMES)

    text = data_yaml("segment", ["train"], list(NAMES))

    assert yaml.safe_load(text)["names"] == dict(enumerate(NAMES))
    assert text.isascii(), "supervision opens the file in the system's encoding"
    assert len(text.splitlines()) == 4 + len(NAMES), "a line for each"


def test_the_card_names_the_task(made: HandMade) -> None:
    models = {"detect": "yolo11n.pt", "segment": "yolo11n-seg.pt"}
    task = task_of(made)

    card = (made.folder / "README.md").read_text()

    assert f"yolo {task} train data=yolo/data.yaml model={models[task]}" in card


TRAINING = """
import shutil, sys
from pathlib import Path
import matplotlib
from ultralytics import YOLO
from ultralytics.utils import USER_CONFIG_DIR
from tests.generator.yolo_weights import NETWORK

work = Path(sys.argv[1])
shutil.copy(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", Path(USER_CONFIG_DIR) / "Arial.ttf")
(work / "tiny-seg.yaml").write_text(NETWORK)
options = dict(epochs=1, imgsz=64, device="cpu", workers=0, amp=False, plots=False, project=str(work / "runs"))
YOLO(str(work / "tiny-seg.yaml"), task="segment").train(data=sys.argv[2], name="train", **options)
"""


def test_ultralytics_trains_and_validates_on_eight_images_as_they_are_published(tmp_path: Path) -> None:
    prompts = {"templates": ["a {object}"], "variables": {"object": ["ball", "star"]}, "samplesPerPrompt": 4}
    order = an_order(a_model(tmp_path / "model"), prompts=prompts, output={"formats": ["yolo"]})
    store = a_finished_store(order, tmp_path / "store")
    publish(order, store)
    description = store.root / "revisions" / order.revision / "yolo" / "data.yaml"
    work = tmp_path / "work"
    work.mkdir()

    subprocess.run(
        [sys.executable, "-c", TRAINING, work, description],
        check=True,
        cwd=Path(__file__).parents[4],
        env={**os.environ, **quiet(work)},
    )

    [_, row] = (work / "runs" / "train" / "results.csv").read_text().splitlines()
    assert row.split(",")[0] == "1"
    assert (work / "runs" / "train" / "weights" / "best.pt").is_file()
