"""YOLO boxes, read with supervision and Ultralytics."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffugen_generator.labeling.detectors.yolo import import_ultralytics
from diffugen_generator.publishing.publish import publish
from tests.generator.made import a_finished_store, a_model, an_order
from tests.generator.publishing.hand_made import CLASSES, HandMade, assert_box, hand_made
from tests.generator.yolo_weights import quiet

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    return hand_made(tmp_path_factory.mktemp("yolo"), "yolo", yolo={"task": "detect"})


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


def test_ultralytics_reads_the_boxes(made: HandMade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", os.fspath(tmp_path))
    import_ultralytics()  # a plain import would replace PIL's Image.open for the whole process
    from ultralytics.data import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(made.folder / "yolo" / "data.yaml"), autodownload=False)
    dataset = YOLODataset(img_path=data["train"], data=data, task="detect", augment=False, imgsz=64)

    found = {Path(label["im_file"]).name: label for label in dataset.labels}
    for sample in made.of("train"):
        label = found[sample.file_name]
        assert [CLASSES[int(kind)] for kind in label["cls"].ravel()] == [
            each.class_name for each in sample.verdict.instances
        ]
        for box, instance in zip(label["bboxes"], sample.verdict.instances, strict=True):
            x, y, width, height = box * np.tile([sample.width, sample.height], 2)
            assert_box([x - width / 2, y - height / 2, width, height], instance)


def test_the_card_names_the_task(made: HandMade) -> None:
    assert "yolo detect train data=yolo/data.yaml model=yolo11n.pt" in (made.folder / "README.md").read_text()


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
