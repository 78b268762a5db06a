"""Pascal VOC, read with supervision and Pillow, and with torchvision if the images are JPEG."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCDetection, VOCSegmentation

from diffugen_generator.publishing.formats.voc import annotation, label_map, palette
from diffugen_generator.publishing.publish import publish
from diffugen_generator.quality.verdicts import Verdict
from tests.generator.made import a_finished_store, a_model, an_instance, an_order
from tests.generator.publishing.hand_made import CLASSES, HandMade, assert_box, hand_made, iou

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    return hand_made(tmp_path_factory.mktemp("voc"), "voc")


def values(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image)


def test_supervision_reads_the_boxes(made: HandMade) -> None:
    voc = made.folder / "voc"
    import supervision as sv

    dataset = sv.DetectionDataset.from_pascal_voc(str(voc / "JPEGImages"), str(voc / "Annotations"))

    samples = {each.file_name: each for split in SPLITS for each in made.of(split)}
    found = {Path(path).name: detections for path, _, detections in dataset}
    assert set(found) == set(samples)
    for name, sample in samples.items():
        assert len(found[name]) == len(sample.verdict.instances)
        for number, instance in enumerate(sample.verdict.instances):
            class_ids = found[name].class_id
            assert class_ids is not None
            assert dataset.classes[int(class_ids[number])] == instance.class_name
            assert_box(found[name].xyxy[number].tolist(), instance, corners=True)


@pytest.mark.parametrize("split", SPLITS)
def test_masks_have_classes_objects_and_ignored_regions(made: HandMade, split: str) -> None:
    voc = made.folder / "voc"
    names = (voc / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
    assert names == (voc / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
    assert names == [each.sample.id for each in made.of(split)]

    for name, sample in zip(names, made.of(split), strict=True):
        classes = values(voc / "SegmentationClass" / f"{name}.png")
        objects = values(voc / "SegmentationObject" / f"{name}.png")
        assert classes.shape == objects.shape == (sample.height, sample.width)
        hidden = np.zeros(classes.shape, np.bool_)
        ordered = sorted(enumerate(sample.verdict.instances, start=1), key=lambda each: each[1].area)
        for number, instance in ordered:
            seen = instance.segmentation.mask() & ~hidden  # smaller objects are in front
            assert iou(objects == number, seen) == 1
            assert set(np.unique(classes[seen])) == {CLASSES.index(instance.class_name) + 1}
            hidden |= instance.segmentation.mask()
        ignored = np.zeros(classes.shape, np.bool_)
        for region in sample.label.ignored:
            ignored |= region.segmentation.mask() & ~hidden
        assert np.array_equal(classes == 255, ignored)
        assert np.array_equal(objects == 255, ignored)
        assert not (classes[~hidden & ~ignored]).any()


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("信号機", "信号機"),
        ("𠮷 🛰", "𠮷 🛰"),
        ("a <b> & c", "a <b> & c"),
        ("a\u2028b", "a\u2028b"),
        ("a\ufffe\uffff", "a__"),
    ],
)
def test_a_parser_reads_every_name(made: HandMade, name: str, written: str) -> None:
    instance = an_instance(name, np.ones((4, 4), np.bool_))

    text = annotation(replace(made.of("train")[0], verdict=Verdict((instance,))))

    assert Xml.fromstring(text).findtext("object/name") == written
    assert label_map({name: 0}).split("\n")[2] == f"{written}:128,0,0::"


def test_the_palette_is_the_one_of_voc() -> None:
    colors = palette().reshape(-1, 3).tolist()

    # aeroplane, bicycle, person, tvmonitor and the border color of VOC 2012
    assert [colors[value] for value in (0, 1, 2, 15, 20, 255)] == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip


def test_torchvision_reads_it_if_the_images_are_jpeg(tmp_path: Path) -> None:
    order = an_order(
        a_model(tmp_path / "model"),
        image={"width": 64, "height": 64, "format": "jpeg"},
        output={"formats": ["voc"], "splits": {"train": 1}},
    )
    store = a_finished_store(order, tmp_path / "store")
    publish(order, store)
    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit" / "VOC2012").symlink_to(store.root / "revisions" / order.revision / "voc")

    boxes, masks = VOCDetection(tmp_path, image_set="train"), VOCSegmentation(tmp_path, image_set="train")

    assert len(boxes) == len(masks) == 16
    for (image, target), (_, mask) in zip(boxes, masks, strict=True):
        assert image.size == mask.size == (64, 64)
        objects = target["annotation"]["object"]
        assert {each["name"] for each in objects} <= {"ball", "square", "triangle", "star"}
        assert (np.asarray(mask) > 0).any() == bool(objects)
