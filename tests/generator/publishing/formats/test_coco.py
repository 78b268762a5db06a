"""COCO, read by pycocotools, torchvision, transformers and supervision."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from transformers import DetrImageProcessor

from diffugen_api.v1alpha1.output import Output
from diffugen_generator.publishing.coco_segmentation import by_pycocotools, run_lengths, segmentation_of
from diffugen_generator.samples.labels import Rle
from tests.generator.publishing.hand_made import CLASSES, HandMade, Mask, assert_box, box, disk, hand_made, iou

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module", params=["auto", "polygon", "rle"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    return hand_made(tmp_path_factory.mktemp("coco"), "coco", coco={"segmentation": request.param})


def paths(made: HandMade, split: str) -> tuple[str, str]:
    """Return the images' folder and the annotation file of a split."""
    coco = made.folder / "coco"
    return str(coco / split), str(coco / "annotations" / f"instances_{split}.json")


def least(made: HandMade, *, exact: bool = False) -> float:
    """The least overlap of a mask that is read back with the original."""
    assert made.order.spec.output.coco
    polygons = made.order.spec.output.coco.segmentation == "polygon"
    return 0.95 if polygons else 1 if exact else 0.98


@pytest.mark.parametrize("split", SPLITS)
def test_pycocotools(made: HandMade, split: str) -> None:
    coco = COCO(paths(made, split)[1])

    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    images = coco.loadImgs(sorted(coco.getImgIds()))
    assert [each["file_name"] for each in images] == [each.file_name for each in made.of(split)]
    for image, sample in zip(images, made.of(split), strict=True):
        assert (image["width"], image["height"]) == (sample.width, sample.height)
        found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"], iscrowd=False))
        for annotation, instance in zip(found, sample.verdict.instances, strict=True):
            assert CLASSES[annotation["category_id"] - 1] == instance.class_name
            assert_box(annotation["bbox"], instance)
            assert annotation["area"] == instance.area
            assert iou(coco.annToMask(annotation).astype(np.bool_), instance.segmentation.mask()) >= least(made)
        crowds = coco.loadAnns(coco.getAnnIds(imgIds=image["id"], iscrowd=True))
        for annotation, region in zip(crowds, sample.label.ignored, strict=True):
            assert np.array_equal(coco.annToMask(annotation), region.segmentation.mask())


@pytest.mark.parametrize("split", SPLITS)
def test_torchvision(made: HandMade, split: str) -> None:
    dataset = wrap_dataset_for_transforms_v2(
        CocoDetection(*paths(made, split)), target_keys=["boxes", "labels", "masks", "iscrowd"]
    )

    assert len(dataset) == len(made.of(split))
    for (image, target), sample in zip(dataset, made.of(split), strict=True):
        assert image.size == (sample.width, sample.height)
        objects = [number for number, crowd in enumerate(target.get("iscrowd", ())) if not crowd]
        for number, instance in zip(objects, sample.verdict.instances, strict=True):
            assert CLASSES[int(target["labels"][number]) - 1] == instance.class_name
            assert_box(target["boxes"][number].tolist(), instance, corners=True)
            assert iou(target["masks"][number].numpy().astype(np.bool_), instance.segmentation.mask()) >= least(made)


@pytest.mark.parametrize("split", SPLITS)
def test_transformers_reads_it_for_detr_with_masks(made: HandMade, split: str) -> None:
    images, file = paths(made, split)
    coco = COCO(file)
    processor = DetrImageProcessor(do_resize=False, do_pad=False, do_convert_annotations=False)

    for number, sample in enumerate(made.of(split), start=1):
        # without crowds: transformers drops their boxes and keeps their masks, so the two do not match
        target = {"image_id": number, "annotations": coco.loadAnns(coco.getAnnIds(imgIds=number, iscrowd=False))}
        with Image.open(Path(images) / sample.file_name) as image:
            read = processor.preprocess(image, annotations=target, return_segmentation_masks=True, return_tensors="pt")
        (labels,) = read["labels"]
        found = zip(labels["class_labels"], labels["boxes"], labels["masks"], strict=True)
        for (kind, corners, mask), instance in zip(found, sample.verdict.instances, strict=True):
            assert CLASSES[int(kind) - 1] == instance.class_name
            assert_box(corners.tolist(), instance, corners=True)
            assert iou(mask.numpy().astype(np.bool_), instance.segmentation.mask()) >= least(made)


@pytest.mark.parametrize("split", SPLITS)
def test_supervision(made: HandMade, split: str) -> None:
    import supervision as sv

    dataset = sv.DetectionDataset.from_coco(*paths(made, split), force_masks=True)

    assert list(dataset.classes) == list(CLASSES)
    found = {Path(path).name: detections for path, _, detections in dataset}
    assert sorted(found) == sorted(each.file_name for each in made.of(split))
    for sample in made.of(split):
        detections = found[sample.file_name]
        count = len(sample.verdict.instances)
        assert len(detections) == count + len(sample.label.ignored)
        for number, instance in enumerate(sample.verdict.instances):
            assert detections.mask is not None
            assert detections.class_id is not None
            assert dataset.classes[int(detections.class_id[number])] == instance.class_name
            assert_box(detections.xyxy[number].tolist(), instance, corners=True)
            overlap = iou(detections.mask[number], instance.segmentation.mask())
            # supervision reads polygon points as pixel centers: objects that are always polygons become up to a pixel
            # too large
            assert overlap >= (0.2 if least(made) < 0.98 else 0.98)


def kinds(mask: Mask, choice: str) -> type:
    return type(segmentation_of(Rle.of(mask), choice))  # type: ignore[arg-type]


def test_auto_writes_polygons_only_if_every_reader_gets_the_mask_back() -> None:
    size = (400, 400)
    large, small = disk(size, 200, 200, 150), disk(size, 200, 200, 5)

    assert kinds(large, "auto") is list
    assert kinds(small, "auto") is dict, "a reader that rounds makes it a pixel larger"
    assert kinds(large & ~disk(size, 200, 200, 20), "auto") is dict, "a hole"
    assert kinds(large, "rle") is kinds(small, "rle") is dict
    assert kinds(small, "polygon") is kinds(large & ~small, "polygon") is list


def test_each_part_is_a_polygon_of_its_own() -> None:
    size = (300, 640)
    parts = disk(size, 150, 150, 140) | disk(size, 480, 150, 140)

    polygons = segmentation_of(Rle.of(parts), "auto")

    assert isinstance(polygons, list)
    assert len(polygons) == 2
    assert max(len(polygon) for polygon in polygons) < 300, "simplified: the outline of pixels has over 1,000 numbers"
    assert iou(by_pycocotools([np.reshape(each, (-1, 2)) for each in polygons], size), parts) >= 0.98


@pytest.mark.parametrize("mask", [box((5, 4), 0, 0, 2, 3), box((5, 4), 1, 2, 3, 3), box((3, 3), 0, 0, 3, 3)])
def test_run_lengths_equal_those_of_coco(mask: Mask) -> None:
    from pycocotools import mask as coco_mask

    encoded = coco_mask.frPyObjects(json.loads(json.dumps(run_lengths(mask))), *mask.shape)

    assert np.array_equal(coco_mask.decode(encoded), mask)


def test_options_of_a_format_that_is_not_requested_are_refused() -> None:
    with pytest.raises(ValueError, match="coco has options, but formats does not name coco: add coco to formats"):
        Output.model_validate({"formats": ["yolo"], "coco": {"segmentation": "rle"}})
