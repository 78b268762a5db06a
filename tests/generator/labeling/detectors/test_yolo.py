"""Ultralytics models, with weights that are trained here: masks, colors, no network access."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from diffugen_api.errors import SpecError
from diffugen_api.v1alpha1 import DetectorLabeling, ObjectClass
from diffugen_generator.labeling.decide.from_detections import choose
from diffugen_generator.labeling.detectors.opening import open_detector
from diffugen_generator.labeling.evidence.detections import Detections
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.pickled_classes import yolo_classes
from diffugen_generator.models.side_models import detectors_of
from generator.training import scenes
from tests.generator.yolo_weights import weights

SHAPES = [ObjectClass(name=name) for name in scenes.CLASSES]


@pytest.fixture(scope="session")
def file() -> Path:
    return weights()


@pytest.fixture(scope="module")
def settings(file: Path) -> DetectorLabeling:
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return DetectorLabeling(type="yolo", model=str(file), sha256=sha256)


@pytest.fixture(scope="module")
def detector(settings: DetectorLabeling) -> Any:
    return open_detector(settings, detectors_of(settings), SHAPES, torch.device("cpu"))


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def quality_of(detector: Any, settings: DetectorLabeling, drawn: scenes.Scenes, rasters: NDArray[np.uint8]) -> float:
    """Mean overlap with the exact masks; 0 for an object that is not found."""
    overlaps = []
    for number, found in enumerate(detector.look([LabelInput(image, "", 0) for image in rasters])):
        masks = {each.class_name: each.segmentation.mask() for each in choose(found, settings, SHAPES, "")}
        overlaps += [
            iou(masks[scenes.CLASSES[kind]], mask) if scenes.CLASSES[kind] in masks else 0.0
            for kind, mask in zip(drawn.classes[number], drawn.masks[number], strict=True)
            if kind != scenes.NOTHING
        ]
    return float(np.mean(overlaps))


def test_it_finds_drawn_shapes_in_their_own_colors(detector: Any, settings: DetectorLabeling) -> None:
    drawn = scenes.draw(48, np.random.default_rng(99))

    right = quality_of(detector, settings, drawn, drawn.images)
    swapped = quality_of(detector, settings, drawn, drawn.images[..., ::-1].copy())

    assert right >= 0.8
    assert right > swapped, "red and blue are not exchanged on the way"


def test_it_gets_the_same_input_as_the_library_makes_from_the_image(detector: Any) -> None:
    image = scenes.draw(1, np.random.default_rng(3)).images[0]
    (result,) = detector._model.predict(
        Image.fromarray(image), conf=0.05, iou=0.95, retina_masks=True, device="cpu", verbose=False
    )

    (found,) = detector.look([LabelInput(image, "", 0)])

    assert [each.score for each in found.found] == pytest.approx(sorted(result.boxes.conf.tolist())[::-1], abs=1e-3)


@pytest.mark.parametrize(("width", "height"), [(128, 96), (96, 128)])
def test_masks_have_the_images_own_size_and_place(
    detector: Any, settings: DetectorLabeling, width: int, height: int
) -> None:
    scene = scenes.draw(1, np.random.default_rng(11), two=0.0)
    image = np.empty((height, width, 3), np.uint8)
    image[:] = scene.images[0, 0, 0]
    image[-96:, -96:] = cv2.resize(scene.images[0], (96, 96))  # in the lower right corner
    exact = np.zeros((height, width), np.bool_)
    exact[-96:, -96:] = cv2.resize(scene.masks[0, 0].astype(np.float32), (96, 96)) >= 0.5

    (found,) = detector.look([LabelInput(image, "", 0)])

    assert found.size == (height, width)
    masks = [each.segmentation.mask() for each in choose(found, settings, SHAPES, "")]
    assert max((iou(mask, exact) for mask in masks), default=0.0) > 0.75


def test_masks_keep_holes_and_parts(detector: Any) -> None:
    ring = np.zeros((64, 64), np.float32)
    ring[10:40, 10:40] = 1
    ring[20:30, 20:30] = 0
    ring[50:60, 50:60] = 1
    result = SimpleNamespace(
        masks=SimpleNamespace(data=torch.from_numpy(ring)[None]),
        boxes=SimpleNamespace(cls=torch.tensor([3.0]), conf=torch.tensor([0.9])),
        names={3: "star"},
    )
    asked: dict[str, Any] = {}

    def predict(rasters: list[NDArray[np.uint8]], **how: Any) -> list[SimpleNamespace]:
        asked.update(how, rasters=rasters)
        return [result]

    real, detector._model = detector._model, SimpleNamespace(predict=predict)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    try:
        (found,) = detector.look([LabelInput(image, "", 0)])
    finally:
        detector._model = real

    np.testing.assert_array_equal(found.found[0].mask.mask(), ring > 0)
    assert asked["retina_masks"] is True
    np.testing.assert_array_equal(asked["rasters"][0], image[..., ::-1], "arrays are taken for BGR")


def test_an_empty_image_has_no_detections_above_the_threshold(detector: Any, settings: DetectorLabeling) -> None:
    (found,) = detector.look([LabelInput(np.full((64, 64, 3), 128, np.uint8), "", 0)])

    assert choose(found, settings, SHAPES, "") == []


def test_its_classes_are_read_without_loading_the_model(file: Path) -> None:
    assert yolo_classes(file) == scenes.CLASSES


def test_nothing_is_sent_or_fetched_and_unpickling_is_restricted(settings: DetectorLabeling, tmp_path: Path) -> None:
    code = f"""
import socket, sys
def refuse(*_, **__): sys.exit("reached for the network")
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np, torch
from diffugen_api.v1alpha1 import DetectorLabeling
from diffugen_generator.models.side_models import detectors_of
from diffugen_generator.labeling.detectors.opening import open_detector
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.pickled_classes import yolo_classes
settings = DetectorLabeling(type="yolo", model={settings.model!r}, sha256={settings.sha256!r})
from PIL import Image
torch.set_num_threads(3)
before = Image.open, torch.save
detector = open_detector(settings, detectors_of(settings), [], torch.device("cpu"))
detector.look([LabelInput(np.zeros((64, 64, 3), np.uint8), "", 0)])
import ultralytics
from ultralytics.utils import SAFE_LOAD
from ultralytics.utils.events import events
assert SAFE_LOAD, "weights are unpickled without a list of allowed classes"
assert ultralytics.settings["sync"] is False and not events.enabled
assert torch.get_num_threads() == 3, "the library changes the threads of all torch"
assert (Image.open, torch.save) == before, "the library replaces functions of others"
"""
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path)}
    environment.pop("ULTRALYTICS_SAFE_LOAD", None)

    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr


def test_if_the_library_is_missing_the_error_names_the_extra(
    settings: DetectorLabeling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ultralytics", None)

    with pytest.raises(SpecError) as refused:
        open_detector(settings, detectors_of(settings), SHAPES, torch.device("cpu"))

    assert refused.value.reason == "MissingExtra"
    assert "install the extra: diffugen[yolo] (AGPL-3.0)" in str(refused.value)


def test_the_same_image_gives_the_same_evidence_in_any_batch(detector: Any) -> None:
    rasters = [LabelInput(image, "", 0) for image in scenes.draw(3, np.random.default_rng(4)).images]

    together: list[Detections] = detector.look(rasters)

    alone = [detector.look([image])[0] for image in rasters]
    assert [[e.native for e in each.found] for each in together] == [[e.native for e in each.found] for each in alone]
