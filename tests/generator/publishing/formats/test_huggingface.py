"""Parquet, loaded with `datasets`, whole and as a stream."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from diffugen_generator.publishing.formats import huggingface as our_format
from diffugen_generator.samples.labels import Rle
from tests.generator.publishing.hand_made import CLASSES, HandMade, assert_box, hand_made, iou

NAMES = {"train": "train", "val": "validation", "test": "test"}


@pytest.fixture(scope="module", params=[1, 400 << 20])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    """The dataset in files of two rows, and in one file for each split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(our_format, "FILE_BYTES", request.param)
        patch.setattr(our_format, "_GROUP_ROWS", 2)
        return hand_made(tmp_path_factory.mktemp("huggingface"), "huggingface")


def check(made: HandMade, split: str, rows: list[dict[str, Any]]) -> None:
    samples = made.of(split)
    assert [row["id"] for row in rows] == [each.sample.id for each in samples]
    for row, sample in zip(rows, samples, strict=True):
        with Image.open(io.BytesIO(made.store.read(sample.image))) as image:
            assert np.array_equal(np.asarray(row["image"]), np.asarray(image))
        assert (row["width"], row["height"]) == (sample.width, sample.height)
        assert (row["prompt"], row["seed"]) == (sample.sample.prompt, sample.sample.seed)
        objects = row["objects"]
        assert len(objects["category"]) == len(sample.verdict.instances)
        for number, instance in enumerate(sample.verdict.instances):
            assert CLASSES[objects["category"][number]] == instance.class_name
            assert objects["area"][number] == instance.area
            assert_box(objects["bbox"][number], instance)
            mask = Rle.from_row(json.loads(objects["segmentation"][number])).mask()
            assert iou(mask, instance.segmentation.mask()) == 1
        ignored = row["ignored"]
        assert [CLASSES[each] for each in ignored["category"]] == [each.class_name for each in sample.label.ignored]
        for text, region in zip(ignored["segmentation"], sample.label.ignored, strict=True):
            assert np.array_equal(Rle.from_row(json.loads(text)).mask(), region.segmentation.mask())


@pytest.mark.parametrize("split", NAMES)
@pytest.mark.parametrize("streaming", [False, True])
def test_datasets(made: HandMade, split: str, streaming: bool, tmp_path: Path) -> None:
    from datasets import ClassLabel, load_dataset

    folder = str(made.folder / "huggingface")
    dataset = load_dataset(folder, split=NAMES[split], streaming=streaming, cache_dir=str(tmp_path))

    category = dataset.features["objects"]["category"].feature
    assert isinstance(category, ClassLabel)
    assert category.names == list(CLASSES)
    check(made, split, list(dataset))


def test_the_hand_made_dataset_has_regions_to_ignore(made: HandMade) -> None:
    assert any(each.label.ignored for split in NAMES for each in made.of(split))


def test_the_head_of_the_readme_names_the_files(made: HandMade) -> None:
    folder = made.folder / "huggingface"
    head = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])

    (config,) = head["configs"]
    assert [each["split"] for each in config["data_files"]] == list(NAMES.values())
    for each in config["data_files"]:
        assert list(folder.glob(each["path"]))
