"""The folder store: the guarantees of the protocol, and readers never see a partly written file."""

import errno
import os
from pathlib import Path

import pytest

from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.failures import Missing, StoreFailure, StoreRefused
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.opening import open_bucket, open_folder


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def test_written_content_is_read_back(store: FolderStore) -> None:
    store.write("a/b/c.json", b"one")
    store.write("a/b/c.json", b"two")

    assert store.read("a/b/c.json") == b"two"
    assert store.exists("a/b/c.json")


def test_a_file_of_any_size_is_uploaded(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"x" * 100_000)

    store.upload("a/large", tmp_path / "local")

    assert store.read("a/large") == b"x" * 100_000


@pytest.mark.parametrize("key", ["nothing", "a/b", "a/b/c.json/d"])
def test_a_missing_key_is_named(store: FolderStore, key: str) -> None:
    store.write("a/b/c.json", b"one")

    with pytest.raises(Missing, match=f"has no {key}") as failure:
        store.read(key)

    assert failure.value.key == key
    assert not store.exists(key)


def test_keys_are_listed_as_s3_lists_them(store: FolderStore) -> None:
    keys = ["a-b/1", "a/1", "a/10", "a/2/x", "a/2/y", "a2", "b/1"]
    for key in keys:
        store.write(key, b"")

    assert list(store.list("")) == sorted(keys)
    assert list(store.list("a/")) == ["a/1", "a/10", "a/2/x", "a/2/y"]
    assert list(store.list("a/1")) == ["a/1", "a/10"]
    assert list(store.list("nothing/")) == []


def test_files_that_are_being_written_are_not_listed(store: FolderStore) -> None:
    store.write("a/b", b"")
    (store.root / "a" / ".0123.part").write_bytes(b"half")

    assert list(store.list("")) == ["a/b"]


def test_a_copy_is_a_link_that_outlives_its_source(store: FolderStore) -> None:
    store.write("a", b"picture")

    store.copy("a", "there/b")
    store.copy("a", "there/b")
    store.write("a", b"another")

    assert store.read("there/b") == b"picture"
    assert [path.name for path in (store.root / "there").iterdir()] == ["b"]


def test_copying_a_missing_key_names_it(store: FolderStore) -> None:
    with pytest.raises(Missing, match="has no a/b"):
        store.copy("a/b", "c")

    assert list(store.list("")) == []


def test_folders_are_listed_without_their_content(store: FolderStore) -> None:
    for key in ("plans/b/x/y", "plans/a/z", "plans/file", "other/c/z"):
        store.write(key, b"")

    assert list(store.folders("plans/")) == ["a", "b"]
    assert list(store.folders("")) == ["other", "plans"]
    assert list(store.folders("nothing/")) == []


def test_deleting_also_removes_folders_that_become_empty(store: FolderStore) -> None:
    for key in ("a/b/c", "a/d", "e/f/g"):
        store.write(key, b"")

    store.delete(["a/b/c", "e/f/g", "never/there"])
    store.delete([])

    assert list(store.list("")) == ["a/d"]
    assert sorted(path.name for path in store.root.iterdir()) == ["a"]
    store.delete(["a/d"])
    assert not store.root.exists()


def test_a_failed_write_keeps_the_former_content(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("a", b"old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        store.write("a", b"new")

    assert store.read("a") == b"old"
    assert [path.name for path in store.root.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("number", "failure"),
    [(errno.EROFS, StoreRefused), (errno.EACCES, StoreRefused), (errno.EIO, StoreFailure)],
)
def test_an_error_of_the_file_system_names_the_folder(
    number: int, failure: type[StoreFailure], store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "local").write_bytes(b"x")

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", fail)
    monkeypatch.setattr(os, "open", fail)
    monkeypatch.setattr(os, "scandir", fail)
    for act in (
        lambda: store.write("a", b""),
        lambda: store.upload("a", tmp_path / "local"),
        lambda: store.read("a"),
        lambda: list(store.list("a")),
    ):
        with pytest.raises(StoreFailure, match=rf"^the store {store.uri}: 'a' .*; name another folder$") as caught:
            act()
        assert type(caught.value) is failure


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../../b", "a/"])
def test_keys_stay_inside_the_folder(store: FolderStore, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        store.write(key, b"")


def test_a_file_as_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreRefused, match="is a file; name another"):
        FolderStore(tmp_path / "file" / "store").check()


def test_a_folder_that_does_not_exist_yet_can_be_a_store(tmp_path: Path) -> None:
    FolderStore(tmp_path / "not" / "there" / "yet").check()

    assert list(tmp_path.iterdir()) == []


def test_a_folder_can_hold_many_datasets(tmp_path: Path) -> None:
    assert open_folder(tmp_path, "vision", "cars").uri == str(tmp_path / "vision" / "cars")


def test_a_bucket_can_hold_many_datasets() -> None:
    s3 = S3(endpoint="http://minio:9000", bucket="data", prefix="sets/")

    assert open_bucket(s3, "vision", "cars").uri == "s3://data/sets/vision/cars"


def test_if_there_is_no_store_the_error_names_the_field() -> None:
    with pytest.raises(SpecError, match="spec.output.s3: no store is given"):
        open_bucket(None, "vision", "cars")


def test_of_two_writers_that_read_the_same_content_one_succeeds(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    _, nothing = store.read_tagged("current.json")
    assert store.replace("current.json", b"one", nothing)
    assert not store.replace("current.json", b"two", nothing)
    data, tag = store.read_tagged("current.json")
    assert data == b"one"

    assert store.replace("current.json", b"three", tag)
    assert not store.replace("current.json", b"four", tag)
    assert store.read("current.json") == b"three"


def without_links(*_: object) -> None:
    raise OSError(errno.EPERM, "no hard links here")


@pytest.mark.parametrize("way", ["write", "upload", "copy"])
def test_a_file_is_synced_to_disk_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    store = FolderStore(tmp_path / "store")
    store.write("source", b"content")
    (tmp_path / "file").write_bytes(b"content")
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: order.append("fsync") or fsync(number))
    monkeypatch.setattr(os, "link", without_links)
    monkeypatch.setattr(Path, "replace", lambda path, target: order.append("rename") or replace(path, target))

    if way == "write":
        store.write("a/b", b"content")
    elif way == "upload":
        store.upload("a/b", tmp_path / "file")
    else:
        store.copy("source", "a/b")

    assert order == ["fsync", "rename"]
    assert store.read("a/b") == b"content"
