"""The list of a revision's files: in dataset.json, or in a file of its own; earlier versions stay readable."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from diffugen_generator.failures import Damaged
from diffugen_generator.publishing import file_list
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.published import FILE_LIST, PublishedFile, dataset_of, files_of, lines_of
from diffugen_generator.samples.documents import sealed
from diffugen_generator.store.folder import FolderStore
from tests.generator.made import a_finished_store, a_model, an_order

SMALL = {"templates": ["a ball", "a star"], "samplesPerPrompt": 2}


def published(folder: Path) -> tuple[FolderStore, str]:
    order = an_order(a_model(folder / "model"), prompts=SMALL)
    store = a_finished_store(order, folder / "store")
    publish(order, store)
    return store, f"revisions/{order.revision}/"


def files_on_disk(store: FolderStore, folder: str) -> dict[str, PublishedFile]:
    found = {}
    for key in store.list(folder):
        data, path = store.read(key), key.removeprefix(folder)
        found[path] = PublishedFile(path, len(data), hashlib.sha256(data).hexdigest())
    return found


def test_dataset_json_lists_every_other_file(tmp_path: Path) -> None:
    store, folder = published(tmp_path)
    expected = files_on_disk(store, folder)
    del expected["dataset.json"]

    assert {file.path: file for file in files_of(store, folder, dataset_of(store))} == expected
    assert "fileList" not in dataset_of(store)


def test_a_long_list_is_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_list, "LISTED", 10)
    store, folder = published(tmp_path)
    expected = files_on_disk(store, folder)
    del expected["dataset.json"]
    dataset = dataset_of(store)

    assert dataset["fileList"] == FILE_LIST
    assert {"manifest.jsonl.gz", "README.md", FILE_LIST} < set(dataset["files"])
    assert not any(path.endswith((".png", ".txt")) for path in dataset["files"] if path != "contact-sheet.png")
    assert {file.path: file for file in files_of(store, folder, dataset)} == expected


def test_files_of_an_earlier_version_are_found_in_the_store(tmp_path: Path) -> None:
    store, folder = published(tmp_path)
    dataset = dataset_of(store)
    dataset["sha256"] = {path: file["sha256"] for path, file in dataset.pop("files").items() if "/" not in path}
    store.write(f"{folder}dataset.json", json.dumps(sealed(dataset)).encode())
    expected = files_on_disk(store, folder)
    del expected["dataset.json"]
    store.delete([f"{folder}README.md"])

    found = {file.path: file for file in files_of(store, folder, dataset_of(store))}

    readme = expected.pop("README.md")
    assert found.pop("README.md") == PublishedFile("README.md", -1, readme.sha256)
    assert found == {path: file if "/" not in path else file._replace(sha256="") for path, file in expected.items()}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"files": None}, "it lists no files: neither files nor sha256 is there"),
        ({"fileList": FILE_LIST}, f"files lacks {FILE_LIST}, the list of all files"),
    ],
)
def test_a_dataset_json_without_its_files_is_damaged(tmp_path: Path, changes: dict[str, str], says: str) -> None:
    store, folder = published(tmp_path)
    dataset = {key: value for key, value in (dataset_of(store) | changes).items() if value is not None}
    store.write(f"{folder}dataset.json", json.dumps(sealed(dataset)).encode())

    with pytest.raises(Damaged, match=rf"dataset\.json.*{re.escape(says)}"):
        dataset_of(store)


@pytest.mark.parametrize("step", [7, 3000, 1 << 16])
def test_missing_and_cut_files_are_found(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_list, "_STEP", step)
    files = [PublishedFile(f"images/{number}.png", number, "") for number in range(3000)]
    sizes = [(file.path, file.size) for file in files if file.size not in {7, 2999}]
    sizes += [("images/2999.png", 12), ("other", 5)]

    assert file_list.missing_files(lambda: iter(files), sizes) == ["images/2999.png", "images/7.png"]
    assert file_list.missing_files(lambda: iter(files), ((file.path, file.size) for file in files)) == []


def test_gzipped_lines_come_in_any_chunks_and_damage_is_named(tmp_path: Path) -> None:
    import gzip

    text = b"".join(b"%d %s\n" % (number, b"x" * (number % 700)) for number in range(5000))
    data = gzip.compress(text)

    for size in (1, 1000, len(data)):
        chunks = (data[start : start + size] for start in range(0, len(data), size))
        assert list(lines_of("the list", chunks)) == text.splitlines()
    for broken, why in ((data[:-20], "cut off"), (b"no gzip", "not a gzip file")):
        with pytest.raises(Damaged, match=f"the list is damaged .*{why}"):
            list(lines_of("the list", [broken]))


def test_a_revision_that_lost_a_file_is_filled_again(tmp_path: Path) -> None:
    order = an_order(a_model(tmp_path / "model"), prompts=SMALL)
    store = a_finished_store(order, tmp_path / "store")
    publish(order, store)
    folder = f"revisions/{order.revision}/"
    before = files_on_disk(store, folder)
    store.delete([f"{folder}README.md", next(key for key in store.list(f"{folder}coco/") if key.endswith(".png"))])

    publish(order, store)

    assert files_on_disk(store, folder) == before


def test_of_many_missing_files_the_same_ten_are_named_in_any_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [PublishedFile(f"images/{number}.png", number, "") for number in range(200)]
    found = []
    for step in (3, 50, 1000):
        monkeypatch.setattr(file_list, "_STEP", step)
        found.append(file_list.missing_files(lambda: iter(files), []))

    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 10
