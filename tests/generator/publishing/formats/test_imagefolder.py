"""An image folder, read with torchvision and `datasets`."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from diffugen_generator.publishing.dataset_format import FormatFolder
from diffugen_generator.publishing.formats.imagefolder import ImageFolder as Images
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.quality.verdicts import Verdict
from tests.generator.made import an_instance
from tests.generator.publishing.hand_made import HandMade, hand_made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    return hand_made(tmp_path_factory.mktemp("imagefolder"), "imagefolder")


def of_one_class(made: HandMade, split: str) -> dict[str, str]:
    """Map the file name of each image of a split to its class; images without one are left out."""
    classes = {each.file_name: {i.class_name for i in each.verdict.instances} for each in made.of(split)}
    return {name: found.pop() for name, found in classes.items() if len(found) == 1}


def test_torchvision(made: HandMade) -> None:
    for split in ("train", "val", "test"):
        dataset = ImageFolder(str(made.folder / "imagefolder" / split))

        found = {Path(path).name: dataset.classes[label] for path, label in dataset.samples}
        assert found == of_one_class(made, split)


def test_datasets(made: HandMade, tmp_path: Path) -> None:
    from datasets import load_dataset

    folder = str(made.folder / "imagefolder")
    dataset = load_dataset("imagefolder", data_dir=folder, split="train", cache_dir=str(tmp_path))

    names = dataset.features["label"].names
    expected = of_one_class(made, "train")
    assert sorted(names[label] for label in dataset["label"]) == sorted(expected.values())
    assert len(expected) == 4


def test_the_card_counts_images_that_are_left_out(made: HandMade) -> None:
    card = (made.folder / "README.md").read_text()

    assert "whose objects are all of that class: 7 images." in card
    assert "5 images with no object or with several classes are not in it." in card


def test_folders_have_safe_names(tmp_path: Path) -> None:
    folder = SimpleNamespace(class_ids={"traffic light/red": 0, "球": 1}, splits=["train"])
    copied: list[str] = []
    folder.copy_image = lambda _, path: copied.append(path)
    images = Images(cast("FormatFolder", folder))

    for name in folder.class_ids:
        instance = an_instance(name, np.ones((4, 4), np.bool_))
        sample = SimpleNamespace(verdict=Verdict((instance,)), split="train", file_name="a.png")
        images.add(cast("LabeledSample", sample), cast("StoredImage", None))

    assert copied == ["train/traffic light_red/a.png", "train/球/a.png"]
