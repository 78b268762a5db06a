"""Tar files, read with webdataset."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from diffugen_generator.publishing.formats import webdataset as our_format
from diffugen_generator.samples.labels import Rle
from tests.generator.publishing.hand_made import CLASSES, HandMade, assert_box, hand_made, iou


@pytest.fixture(scope="module", params=[1, 256 << 20])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    """The dataset in tar files of one sample, and in one tar file for each split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(our_format, "SHARD_BYTES", request.param)
        return hand_made(tmp_path_factory.mktemp("webdataset"), "webdataset")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_sample_is_read_back(made: HandMade, split: str) -> None:
    folder = made.folder / "webdataset"
    files = json.loads((folder / "index.json").read_text())[split]
    urls = [str(folder / each["file"]) for each in files]
    read = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("pil"))

    samples = made.of(split)
    assert sum(each["samples"] for each in files) == len(samples)
    assert [each["__key__"] for each in read] == [each.sample.id for each in samples]
    for found, sample in zip(read, samples, strict=True):
        with Image.open(io.BytesIO(made.store.read(sample.image))) as image:
            assert np.array_equal(np.asarray(found["png"]), np.asarray(image))
        label = found["json"]
        assert (label["prompt"], label["seed"]) == (sample.sample.prompt, sample.sample.seed)
        for each, instance in zip(label["objects"], sample.verdict.instances, strict=True):
            assert (each["class"], each["classId"]) == (instance.class_name, CLASSES.index(instance.class_name))
            assert_box(each["bbox"], instance)
            assert iou(Rle.from_row(each["segmentation"]).mask(), instance.segmentation.mask()) == 1
        for each, region in zip(label["ignore"], sample.label.ignored, strict=True):
            assert np.array_equal(Rle.from_row(each["segmentation"]).mask(), region.segmentation.mask())


def test_the_card_names_all_tar_files(made: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.folder)
    card = (made.folder / "README.md").read_text()
    code = card.split("### WebDataset")[1].split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}

    exec(code, names)

    assert names["label"]["id"] == made.of("train")[-1].sample.id  # type: ignore[index]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    def digests(folder: Path) -> list[str]:
        made = hand_made(folder, "webdataset")
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(made.folder.glob("webdataset/*.tar"))]

    assert digests(tmp_path / "one") == digests(tmp_path / "two")
