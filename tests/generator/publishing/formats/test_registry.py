"""Formats are found by their names, and share one pass over the samples."""

import json
import pkgutil
import sys
import tarfile
from pathlib import Path
from typing import Any, get_args

import pytest

from diffugen_api.contract import ExitCode, Outcome, Step
from diffugen_api.orders import WorkOrder
from diffugen_api.v1alpha1.output import Format
from diffugen_generator.failures import Incomplete
from diffugen_generator.publishing import formats
from diffugen_generator.publishing.dataset_format import DatasetFormat
from diffugen_generator.publishing.format_registry import format_named
from diffugen_generator.publishing.publish import publish
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.worker import work
from tests.generator.made import a_finished_store, a_model, an_order, manifest_lines

TARS = '''
"""A format that a user adds: a tar of image files and classes for each split."""

import io
import json
import tarfile

from diffugen_generator.publishing.dataset_format import DatasetFormat


class Tars(DatasetFormat):
    reads_images = True

    def __init__(self, folder):
        super().__init__(folder)
        self.tars = {split: tarfile.open(folder.local(f"{split}.tar"), "w") for split in folder.splits}

    def add(self, sample, image):
        classes = [each.class_name for each in sample.verdict.instances]
        label = json.dumps(classes).encode()
        for name, data in ((sample.file_name, image.read()), (f"{sample.sample.id}.json", label)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            self.tars[sample.split].addfile(member, io.BytesIO(data))

    def finish(self):
        for split, tar in self.tars.items():
            tar.close()
            self.folder.upload(f"{split}.tar", self.folder.local(f"{split}.tar"))

    def loading(self):
        return "### Tars\\n\\nOne for each split."


FORMAT = Tars
'''


@pytest.fixture
def tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one more format, written as a contributor would write it."""
    (tmp_path / "formats").mkdir()
    (tmp_path / "formats" / "tars.py").write_text(TARS)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path / "formats")])


def ordered(tmp_path: Path, *names: str, **changes: Any) -> WorkOrder:
    order = an_order(a_model(tmp_path / "model"), **changes)
    output = order.spec.output.model_copy(update={"formats": list(names)})
    return order.model_copy(update={"spec": order.spec.model_copy(update={"output": output})})


def test_each_format_of_the_api_is_a_file_and_each_file_a_format_of_the_api() -> None:
    files = {module.name for module in pkgutil.iter_modules(formats.__path__)}

    assert files == set(get_args(Format))
    assert all(issubclass(format_named(name), DatasetFormat) for name in files)


@pytest.mark.usefixtures("tars")
def test_a_format_is_added_with_one_file(tmp_path: Path) -> None:
    order = ordered(tmp_path, "coco", "tars", quality={"minInstances": 2})
    store = a_finished_store(order, tmp_path / "store")

    publish(order, store)

    folder = store.root / "revisions" / order.revision
    lines = {line["id"]: line for line in manifest_lines(store, order.revision) if line["accepted"]}
    found: dict[str, bytes] = {}
    for path in folder.glob("tars/*.tar"):
        with tarfile.open(path) as tar:
            found |= {member.name: stream.read() for member in tar if (stream := tar.extractfile(member))}
    assert {name.partition(".")[0] for name in found} == set(lines)
    for sample_id, line in lines.items():
        assert found[f"{sample_id}.png"] == store.read(line["image"])
        assert json.loads(found[f"{sample_id}.json"]) == [each["class"] for each in line["instances"]]
    dataset = json.loads((folder / "dataset.json").read_text())
    assert {"tars/train.tar", "coco/annotations/instances_train.json"} <= set(dataset["files"])
    card = (folder / "README.md").read_text()
    assert "### Tars\n\nOne for each split." in card
    assert "### COCO" in card
    assert "### YOLO" not in card


class CountingStore(FolderStore):
    """A store that counts how often each key is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str] = []

    def read(self, key: str) -> bytes:
        self.reads.append(key)
        return super().read(key)


@pytest.mark.usefixtures("tars")
def test_formats_that_read_images_share_each_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "formats" / "more_tars.py").write_text(TARS)
    order = ordered(tmp_path, "tars", "more_tars")
    a_finished_store(order, tmp_path / "store")
    store = CountingStore(tmp_path / "store")
    # the contact sheet reads its images a second time
    monkeypatch.setattr("diffugen_generator.publishing.contact_sheet.IMAGES", 0)

    publish(order, store)

    images = [line["image"] for line in manifest_lines(store, order.revision)]
    assert len(images) == 16
    assert {store.reads.count(image) for image in images} == {1}


@pytest.mark.usefixtures("tars")
def test_all_missing_images_are_found_in_one_pass(tmp_path: Path) -> None:
    order = ordered(tmp_path, "tars")
    store = a_finished_store(order, tmp_path / "store")
    gone = sorted(store.root.rglob("*.png"))[:3]
    for path in gone:
        path.unlink()

    with pytest.raises(Incomplete, match=r"the image of sample \w+ \(and 2 more\) is gone from the store; plan again"):
        publish(order, store)


def test_the_plan_names_a_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "diffugen_generator.publishing.formats.huggingface", raising=False)
    order = an_order(a_model(tmp_path / "model"), output={"formats": ["coco", "huggingface"]})
    (tmp_path / "order.json").write_text(order.dumps())
    environ = {"DIFFUGEN_TERMINATION_LOG": str(tmp_path / "message")}

    code = work(Step.PLAN, order_file=tmp_path / "order.json", folder=tmp_path / "store", environ=environ)

    outcome = Outcome.loads((tmp_path / "message").read_text())
    assert outcome is not None
    assert (code, outcome.reason) == (ExitCode.BAD_SPEC, "ExtraNotInstalled")
    assert outcome.message == (
        "spec.output.formats: huggingface needs pyarrow, which is not installed here: pip install 'diffugen[formats]', "
        "or remove huggingface from formats."
    )
    assert not list((tmp_path / "store").rglob("plan.json"))
