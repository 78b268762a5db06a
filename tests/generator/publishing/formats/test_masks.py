"""Mask PNGs, read with OpenCV, torchvision and Pillow."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.generator.publishing.hand_made import CLASSES, HandMade, hand_made

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    return hand_made(tmp_path_factory.mktemp("masks"), "masks")


def read(path: Path) -> np.ndarray:
    """Return the values of a PNG; OpenCV and Pillow must read the same."""
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert values is not None
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), values)
    return np.asarray(values)


def test_the_values_have_names(made: HandMade) -> None:
    names = json.loads((made.folder / "masks" / "classes.json").read_text())

    assert names == {"background": 0, "ignore": 255, "classes": {name: i for i, name in enumerate(CLASSES, start=1)}}


@pytest.mark.parametrize("split", SPLITS)
def test_classes_and_instances(made: HandMade, split: str) -> None:
    masks = made.folder / "masks"
    names = {each.sample.id for each in made.of(split)}
    for kind in ("images", "classes", "instances", "overlays"):
        assert {path.stem for path in (masks / kind / split).iterdir()} == names

    for sample in made.of(split):
        classes = read(masks / "classes" / split / f"{sample.sample.id}.png")
        instances = read(masks / "instances" / split / f"{sample.sample.id}.png")
        assert classes.shape == instances.shape == (sample.height, sample.width)
        assert (classes.dtype.name, instances.dtype.name) == ("uint8", "uint16")
        hidden = np.zeros(classes.shape, np.bool_)
        for number, instance in sorted(enumerate(sample.verdict.instances, start=1), key=lambda each: each[1].area):
            seen = instance.segmentation.mask() & ~hidden  # smaller objects are in front
            assert np.array_equal(instances == number, seen)
            assert (classes[seen] == CLASSES.index(instance.class_name) + 1).all()
            hidden |= seen
        ignored = np.zeros(classes.shape, np.bool_)
        for region in sample.label.ignored:
            ignored |= region.segmentation.mask()
        assert np.array_equal(classes == 255, ignored & ~hidden)
        assert not classes[~hidden & ~ignored].any()
        assert not instances[~hidden].any()


def test_an_overlay_differs_from_its_image_at_the_objects(made: HandMade) -> None:
    for sample in made.of("train"):
        (image_path,) = (made.folder / "masks" / "images").rglob(f"{sample.sample.id}.*")
        (overlay_path,) = (made.folder / "masks" / "overlays").rglob(f"{sample.sample.id}.*")
        with Image.open(image_path) as image, Image.open(overlay_path) as overlay:
            assert image.size == overlay.size
            change = np.abs(np.asarray(image, np.int16) - np.asarray(overlay, np.int16)).max(axis=2)
        objects = np.zeros(change.shape, np.bool_)
        for instance in sample.verdict.instances:
            objects |= instance.segmentation.mask()
        away = cv2.dilate(objects.astype(np.uint8), np.ones((33, 33))) == 0  # JPEG blurs the borders
        assert not away.any() or change[away].max() <= 6
        assert not objects.any() or change[objects].mean() > 20
