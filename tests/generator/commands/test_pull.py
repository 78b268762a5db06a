"""`diffugen pull`: complete, checked, resumed, and never half of it under its final name."""

import errno
import gzip
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Lock
from typing import IO, Any

import pytest

from diffugen_api.contract import ExitCode
from diffugen_generator.commands import pull as module
from diffugen_generator.commands.display import PlainDisplay
from diffugen_generator.commands.published_at import published_at
from diffugen_generator.commands.pull import pull
from diffugen_generator.failures import FilesDamaged, Interrupted, StoreUnreachable
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.reading import PublishedDataset
from diffugen_generator.samples.documents import sealed
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.terminal import open_console
from tests.generator.commands.published import diffugen, order_of, published, sentence, told, tree

DISPLAY = PlainDisplay(open_console(stderr=True))


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return published(tmp_path)[0]


def folder_of(store: FolderStore) -> Path:
    [folder] = (store.root / "revisions").iterdir()
    return folder


def test_a_pulled_revision_is_the_published_one(store: FolderStore, tmp_path: Path) -> None:
    result = told("pull", store.root, tmp_path / "out")

    assert tree(tmp_path / "out" / "current") == tree(folder_of(store))
    assert os.readlink(tmp_path / "out" / "current") == folder_of(store).name
    assert result["files"] == len(tree(folder_of(store)))
    assert result["fetched"] == result["files"] - 1
    assert told("pull", store.root, tmp_path / "out")["fetched"] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"current", folder_of(store).name}


def test_a_format_is_pulled_alone_and_another_is_added(store: FolderStore, tmp_path: Path) -> None:
    told("pull", store.root, tmp_path / "out", "--format", "yolo")
    current = tmp_path / "out" / "current"
    assert {path.name for path in current.iterdir() if path.is_dir()} == {"yolo"}
    assert {"README.md", "dataset.json", "manifest.jsonl.gz"} <= {path.name for path in current.iterdir()}

    told("pull", store.root, tmp_path / "out", "--format", "coco")

    expected = {path: data for path, data in tree(folder_of(store)).items() if not path.startswith("report")}
    assert tree(current) == expected, "all but the report, which needs its own folder"


def test_the_next_revision_moves_the_link(store: FolderStore, tmp_path: Path) -> None:
    told("pull", store.root, tmp_path / "out")
    before = tree(tmp_path / "out" / "current")
    order = order_of(tmp_path, quality={"minAreaFraction": 0.03})
    plan(order, store)
    publish(order, store)

    result = told("pull", store.root, tmp_path / "out")

    assert result["revision"] == order.revision
    assert os.readlink(tmp_path / "out" / "current") == order.revision
    former = json.loads(before["dataset.json"])["revision"]
    assert tree(tmp_path / "out" / former) == before, "the former revision stays"
    older = told("pull", f"{store.root}/revisions/{former}", tmp_path / "out")
    assert older["revision"] == former


class Breaking(FolderStore):
    """A store that ends after some bytes, in the middle of a file."""

    def __init__(self, root: Path, allowed: int) -> None:
        super().__init__(root)
        self.allowed = allowed
        self.read_bytes = 0

    def stream(self, key: str, offset: int = 0) -> Iterator[bytes]:
        for chunk in super().stream(key, offset):
            for start in range(0, len(chunk), 100):
                piece = chunk[start : start + 100]
                if self.read_bytes + len(piece) > self.allowed:
                    raise StoreUnreachable("the connection broke")
                self.read_bytes += len(piece)
                yield piece


def broken(store: FolderStore, allowed: int) -> tuple[PublishedDataset, Breaking]:
    breaking = Breaking(store.root, allowed)
    found = published_at(str(store.root))
    return PublishedDataset(breaking, found.folder, found.dataset), breaking


def test_a_pull_that_broke_goes_on_where_it_was(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FETCHERS", 1)
    monkeypatch.setattr(module, "_WINDOW", 1)
    whole, counting = broken(store, 1 << 30)
    pull(whole, tmp_path / "whole", (), DISPLAY, stop=Event())
    out, steps = tmp_path / "out", 5
    read = 0
    for _ in range(steps):
        part, breaking = broken(store, counting.read_bytes // steps)
        with pytest.raises(StoreUnreachable):
            pull(part, out, (), DISPLAY, stop=Event())
        read += breaking.read_bytes
        assert [path.name for path in out.iterdir()] == [f".{part.name}.part"], "nothing has its final name"
    last, breaking = broken(store, 1 << 30)

    pull(last, out, (), DISPLAY, stop=Event())

    assert tree(out / "current") == tree(folder_of(store))
    assert read + breaking.read_bytes == counting.read_bytes, "no byte was fetched twice"


def test_a_stopped_pull_goes_on(store: FolderStore, tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted, match="the same command goes on"):
        pull(published_at(str(store.root)), tmp_path / "out", (), DISPLAY, stop=stop)
    assert not (tmp_path / "out" / "current").exists()

    told("pull", store.root, tmp_path / "out")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # a hard link: the sample stays as it is
    path.write_bytes(bytes(data))


def test_a_flipped_byte_is_named_and_nothing_is_put_in_place(store: FolderStore, tmp_path: Path) -> None:
    [image, *_] = (folder_of(store) / "coco").rglob("*.png")
    flip(image)
    (folder_of(store) / "yolo" / "data.yaml").unlink()
    name = image.relative_to(folder_of(store)).as_posix()

    with pytest.raises(FilesDamaged):
        pull(published_at(str(store.root)), tmp_path / "out", (), DISPLAY, stop=Event())
    result = diffugen("pull", store.root, tmp_path / "out")

    assert result.exit_code == 65
    assert f"2 files missing or different from what dataset.json says: {name}, yolo/data.yaml" in sentence(result)
    assert not (tmp_path / "out" / "current").exists()
    assert not (tmp_path / "out" / folder_of(store).name).exists()


def test_a_file_that_was_changed_after_a_pull_is_fetched_again(store: FolderStore, tmp_path: Path) -> None:
    told("pull", store.root, tmp_path / "out")
    [image, *_] = (tmp_path / "out" / "current" / "coco").rglob("*.png")
    flip(image)

    assert told("pull", store.root, tmp_path / "out")["fetched"] == 1
    assert tree(tmp_path / "out" / "current") == tree(folder_of(store))


def test_bad_input_is_one_sentence_with_an_exit_code(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    root, out = str(store.root), tmp_path / "out"
    cases: list[tuple[int, str, tuple[str | Path, ...]]] = [
        (64, "--format: .* has no format 'voc'; it has coco, yolo", ("pull", root, out, "--format", "voc")),
        (64, "nothing is published there", ("pull", tmp_path / "empty", out)),
        (64, "there is no folder", ("pull", tmp_path / "nothing", out)),
        (64, "neither s3://BUCKET/PREFIX nor a folder", ("pull", "https://host/x", out)),
        (64, "say where the store is", ("pull", "s3://bucket/x", out, "--endpoint", "")),
        (
            65,
            "has no complete revision 0123456789; the revisions there are",
            ("pull", f"{root}/revisions/0123456789", out),
        ),
        (64, "is a file, or below one", ("pull", root, tmp_path / "file")),
        (64, "--output-layout: 'other' is neither", ("pull", root, out, "--output-layout", "other")),
        (64, "leave one out", ("pull", root, out, "--output-layout", "diffugen", "--format", "coco")),
    ]
    for code, words, arguments in cases:
        result = diffugen(*arguments)
        assert result.exit_code == code, result.output
        assert pytest.importorskip("re").search(words, sentence(result)), sentence(result)
    assert not out.exists() or not list(out.iterdir())


def test_a_pointer_to_a_vanished_revision(store: FolderStore, tmp_path: Path) -> None:
    (folder_of(store) / "dataset.json").unlink()

    result = diffugen("pull", store.root, tmp_path / "out")

    assert result.exit_code == 65
    assert "current.json names the revision" in sentence(result)


def test_a_full_disk_is_found_before_anything_is_fetched(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 10))

    result = diffugen("pull", store.root, tmp_path / "out")

    assert result.exit_code == 75
    assert "has 10 bytes free, and" in sentence(result)
    assert list((tmp_path / "out").iterdir()) == []


class SmallDisk:
    """A disk with room for so many bytes: of the write that does not fit, it takes the beginning."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.written = 0
        self.lock = Lock()

    def opening(self) -> Callable[..., IO[Any]]:
        """Return what takes the place of `Path.open`."""
        disk = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                with disk.lock:
                    fits = min(len(data), disk.room - disk.written)
                    disk.written += fits
                if fits == 0 < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return super().write(data[:fits])

        def opened(path: Path, mode: str = "r", **options: Any) -> IO[Any]:
            return io.BufferedWriter(Raw(path, mode)) if mode in {"ab", "wb"} else open(path, mode, **options)

        return opened


@pytest.mark.parametrize("share", [0.3, 0.9, 1])
def test_a_disk_that_fills_in_the_middle_leaves_nothing_half_written(
    share: float, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, out = tree(folder_of(store)), tmp_path / "out"
    disk = SmallDisk(int(share * sum(map(len, expected.values()))) - 10)  # with all but 10, dataset.json does not fit

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", disk.opening())
        result = diffugen("pull", store.root, out)

    assert disk.written == disk.room
    assert result.exit_code == ExitCode.TRY_AGAIN
    assert sentence(result).startswith("no disk space is left (")
    part = f".{folder_of(store).name}.part"
    assert [path.name for path in out.iterdir()] == [part], "nothing has its final name"
    there = {path: data for path, data in tree(out / part).items() if not path.endswith(".part")}
    half = {path for path, data in there.items() if data != expected[path]}
    assert half <= {"dataset.json"}, "which is fetched again in any case"

    assert told("pull", store.root, out)["fetched"] == len(expected) - 1 - len(there.keys() - {"dataset.json"})
    assert tree(out / "current") == expected


def test_a_list_that_leaves_its_folder_is_refused(store: FolderStore, tmp_path: Path) -> None:
    file = folder_of(store) / "dataset.json"
    files = json.loads(file.read_text())["files"]
    resealed(file, files={**files, "../../evil": files["README.md"]})

    result = diffugen("pull", store.root, tmp_path / "out")

    assert result.exit_code == 65
    assert "it lists the path '../../evil'" in sentence(result)


def resealed(file: Path, **changes: object) -> None:
    """Write a JSON document again with other fields and its checksum."""
    content = {**json.loads(file.read_text()), **changes}
    content.pop("checksum", None)
    file.write_text(json.dumps(sealed(content)))


@pytest.mark.parametrize("revision", ["../escaped", "/tmp/escaped", "x" * 10])
def test_a_revision_whose_name_leaves_the_folder_is_refused(tmp_path: Path, store: FolderStore, revision: str) -> None:
    received = tmp_path / "received"
    told("pull", store.root, tmp_path / "out")
    shutil.copytree(tmp_path / "out" / "current", received)
    resealed(received / "dataset.json", revision=revision)

    result = diffugen("pull", received, tmp_path / "new")

    assert result.exit_code == 65
    assert "dataset.json" in sentence(result)
    assert not (tmp_path / "escaped").exists()


def test_a_pointer_to_a_folder_that_is_no_revision_is_refused(store: FolderStore, tmp_path: Path) -> None:
    name = json.loads((store.root / "current.json").read_text())["dataset"]
    shutil.copytree((store.root / name).parent, store.root / "elsewhere")
    resealed(store.root / "current.json", dataset="elsewhere/dataset.json")

    result = diffugen("pull", store.root, tmp_path / "out")

    assert result.exit_code == 65
    assert "'elsewhere/', which is no folder of a revision" in sentence(result)


@pytest.mark.parametrize("row", [{"id": "../../../x"}, {"image": "samples/base/ab/x.png/../../y"}])
def test_an_id_that_leaves_the_folder_is_refused(store: FolderStore, tmp_path: Path, row: dict[str, str]) -> None:
    file = folder_of(store) / "manifest.jsonl.gz"
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    file.unlink()  # it may be linked elsewhere
    file.write_bytes(gzip.compress(b"".join(json.dumps({**line, **row}).encode() + b"\n" for line in lines)))

    result = diffugen("pull", store.root, tmp_path / "out", "--output-layout", "diffugen")

    assert result.exit_code == 65
    assert "is not one" in sentence(result)
    assert not [path for path in tmp_path.rglob("x*") if path.is_file()]


def test_what_a_stopped_pull_of_another_format_left_is_not_put_in_place(store: FolderStore, tmp_path: Path) -> None:
    part, _ = broken(store, 4000)
    with pytest.raises(StoreUnreachable):
        pull(part, tmp_path / "out", ["coco"], DISPLAY, stop=Event())

    told("pull", store.root, tmp_path / "out", "--format", "yolo")

    found = tree(tmp_path / "out" / "current")
    assert not [path for path in found if path.startswith("coco/") or path.endswith(".part")]
    assert [path for path in found if path.startswith("yolo/")]
    told("pull", store.root, tmp_path / "out")
    assert tree(tmp_path / "out" / "current") == tree(folder_of(store))


def test_diffugens_layout(store: FolderStore, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    told("pull", store.root, tmp_path / "out", "--output-layout", "diffugen")

    task = tmp_path / "out" / "current" / "txt2img"
    images = sorted((task / "images" / "0001").iterdir())
    assert len(images) == json.loads((folder_of(store) / "dataset.json").read_text())["samples"]
    info = json.loads((task / "sd_model_info.json").read_text())
    assert set(info) == {"model", "torch_dtype", "initial_seed"}
    for image in images:
        label = json.loads((task / "labels" / "0001" / f"{image.stem}.json").read_text())
        details = label["prompt_details"]
        assert set(details) >= {
            *("seed", "steps", "prompt", "prompt_template", "view_point", "object_name"),
            *("time_of_day", "sky_condition", "weather_condition"),
        }
        assert details["steps"] == 20
        assert details["prompt"] == details["prompt_template"]
        mask = np.asarray(Image.open(task / "masks" / "0001" / f"{image.stem}.png"))
        assert set(np.unique(mask)) == {0, 255}
        assert (task / "visualizations" / "0001" / f"{image.stem}.jpg").is_file()
        for each in label["labels"]:
            box = each["bounding_box"]
            assert box["coordinates"] == [box["x"], box["y"], box["width"], box["height"]]
            assert box["cx"] == pytest.approx(box["x"] + box["width"] / 2)
            points = np.array(each["bounding_polygon"])
            assert 0 <= points.min() <= points.max() <= 1
            rows, columns = np.nonzero(mask[:, :])
            assert columns.min() / 64 <= box["x"] + 1e-6
            assert rows.max() / 64 >= box["y"]
