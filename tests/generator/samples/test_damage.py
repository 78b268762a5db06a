"""Damage in a store: a truncated, swapped or changed file counts as missing, is named, and is made again."""

from __future__ import annotations

import gzip
import io
import json
import logging
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import SpecError
from diffugen_generator.commands.display import PlainDisplay
from diffugen_generator.commands.run import run
from diffugen_generator.failures import Damaged
from diffugen_generator.publishing.published import current_of
from diffugen_generator.samples.documents import sealed
from diffugen_generator.samples.labels import Rle
from diffugen_generator.store.folder import FolderStore
from tests.generator.graphs import an_order, base, redrawn

CHANGES: dict[str, dict[str, Any]] = {
    # labels are read again
    "quality": {"quality": {"minInstances": 0, "minAreaFraction": 0, "maxAreaFraction": 0.99}},
    # evidence and images are read again
    "threshold": {"labeling": {"attention": {"threshold": 0.3}}},
}


def the_order(model: str, **changes: Any) -> WorkOrder:
    """Batches of one image, so that an image that is drawn again is identical."""
    stages = [base(model), redrawn("sand", "base")]
    return an_order(stages, run={"batchSize": 1}, output={"formats": ["coco"]}, **changes)


def finish(order: WorkOrder, store: FolderStore) -> None:
    run(order, store, PlainDisplay(Console(file=io.StringIO())), device="cpu", stop=Event())


def published(store: FolderStore) -> dict[str, bytes]:
    """The published images, annotations and manifest."""
    folder = layout.revision_folder(current_of(store)["revision"])
    kept = (f"{folder}coco/", f"{folder}manifest.jsonl.gz")
    return {key: store.read(key) for key in store.list(folder) if key.startswith(kept)}


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> str:
    return str(tiny_folder)


@pytest.fixture(scope="module")
def undisturbed(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a published dataset."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(the_order(model), FolderStore(folder))
    return folder


@pytest.fixture(scope="module")
def expected(model: str, undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The dataset that each change publishes from the undamaged store."""
    found = {}
    for name, change in CHANGES.items():
        store = a_copy(undisturbed, tmp_path_factory.mktemp(name) / "store")
        finish(the_order(model, **change), store)
        found[name] = published(store)
    return found


def assert_equal(found: dict[str, bytes], expected: dict[str, bytes], *, seen_again: bool) -> None:
    """Compare all published files; if evidence was made again, in another way, compare only images and samples."""
    if not seen_again:
        assert found == expected
        return
    assert found.keys() == expected.keys()
    assert {key: data for key, data in found.items() if key.endswith(".png")} == {
        key: data for key, data in expected.items() if key.endswith(".png")
    }
    assert image_digests(found) == image_digests(expected)


def image_digests(files: dict[str, bytes]) -> dict[str, str]:
    [manifest] = (data for key, data in files.items() if key.endswith("manifest.jsonl.gz"))
    lines = map(json.loads, gzip.decompress(manifest).splitlines())
    return {line["id"]: line["imageSha256"] for line in lines}


def a_copy(folder: Path, target: Path) -> FolderStore:
    shutil.copytree(folder, target)  # hard links become separate files
    return FolderStore(target)


def keys_of(store: FolderStore, prefix: str, suffix: str) -> list[str]:
    return [key for key in store.list(prefix) if key.endswith(suffix)]


def truncate(store: FolderStore, keys: list[str]) -> list[str]:
    store.write(keys[0], store.read(keys[0])[:-40])
    return keys[:1]


def swap(store: FolderStore, keys: list[str]) -> list[str]:
    one, other = (store.read(key) for key in keys[:2])
    store.write(keys[0], other)
    store.write(keys[1], one)
    return keys[:2]


def empty(store: FolderStore, keys: list[str]) -> list[str]:
    store.write(keys[0], b"")
    return keys[:1]


def nest(store: FolderStore, keys: list[str]) -> list[str]:
    store.write(keys[0], b"[" * 200_000)
    return keys[:1]


def enlarge(store: FolderStore, keys: list[str]) -> list[str]:
    """Give a mask a size that would need a terabyte; the checksum matches."""
    return rewritten(store, keys, lambda each: each["segmentation"].update(size=[1_000_000, 1_000_000]))


def resize(store: FolderStore, keys: list[str]) -> list[str]:
    """Give an object a valid mask of another size than the image."""
    return rewritten(store, keys, lambda each: each.update(full_mask(32)))


def overfill(store: FolderStore, keys: list[str]) -> list[str]:
    """Give a mask runs that go beyond its size: those of a mask of four times its pixels."""
    return rewritten(
        store,
        keys,
        lambda each: each.update({**full_mask(128), "segmentation": {**full_mask(128)["segmentation"], "size": SIZE}}),
    )


SIZE = [64, 64]


def full_mask(side: int) -> dict[str, Any]:
    """Return the fields of an object that fills a square."""
    mask = Rle.of(np.ones((side, side), np.bool_))
    return {"segmentation": mask.row(), "area": side * side, "bbox": [0, 0, min(side, 64), min(side, 64)]}


def rename(store: FolderStore, keys: list[str]) -> list[str]:
    return rewritten(store, keys, lambda each: each.update({"class": "cat"}))


def misplace(store: FolderStore, keys: list[str]) -> list[str]:
    return rewritten(store, keys, lambda each: each.update(bbox=[0, 0, 1e9, 1]))


def rewritten(store: FolderStore, keys: list[str], change: Callable[[dict[str, Any]], object]) -> list[str]:
    for key in keys:
        label = json.loads(store.read(key))
        if label["instances"]:
            del label["checksum"]
            change(label["instances"][0])
            store.write(key, json.dumps(sealed(label)).encode())
            return [key]
    raise AssertionError("no label has an object")


def lie(store: FolderStore, keys: list[str]) -> list[str]:
    """Change one digit: the label is still valid."""
    label = json.loads(store.read(keys[0]))
    label["looks"]["deviation"] += 1
    store.write(keys[0], json.dumps(label).encode())
    return keys[:1]


def inflate(store: FolderStore, keys: list[str]) -> list[str]:
    """Write evidence whose header asks for a petabyte."""
    array, stream = io.BytesIO(), io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (1, 1 << 25, 1 << 25)}
    np.lib.format.write_array_header_1_0(array, header)
    with zipfile.ZipFile(stream, "w") as entries:
        entries.writestr("maps.npy", array.getvalue() + bytes(4))
    store.write(keys[0], stream.getvalue())
    return keys[:1]


IMAGES, LABELS, EVIDENCE = ("samples/base", ".png"), ("labels/base", ".json"), ("evidence/base", ".npz")
RECIPES, REDRAWN = ("samples/base", ".json"), ("labels/sand", ".json")


@pytest.mark.parametrize(
    ("change", "where", "damage"),
    [
        ("quality", IMAGES, truncate),
        ("quality", IMAGES, swap),
        ("threshold", IMAGES, swap),
        ("quality", RECIPES, swap),
        ("quality", LABELS, swap),
        ("quality", REDRAWN, swap),
        ("quality", LABELS, empty),
        ("quality", LABELS, nest),
        ("quality", LABELS, enlarge),
        ("quality", LABELS, resize),
        ("quality", LABELS, overfill),
        ("quality", REDRAWN, rename),
        ("quality", LABELS, misplace),
        ("quality", REDRAWN, lie),
        ("threshold", EVIDENCE, truncate),
        ("threshold", EVIDENCE, swap),
        ("threshold", EVIDENCE, inflate),
    ],
)
def test_damage_is_named_and_made_again(
    change: str,
    where: tuple[str, str],
    damage: Callable[[FolderStore, list[str]], list[str]],
    model: str,
    undisturbed: Path,
    expected: dict[str, dict[str, bytes]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = a_copy(undisturbed, tmp_path / "store")
    before = {key: store.read(key) for key in keys_of(store, *where)}
    damaged = damage(store, list(before))

    with caplog.at_level(logging.WARNING, "diffugen"):
        finish(the_order(model, **CHANGES[change]), store)

    assert_equal(published(store), expected[change], seen_again=where == EVIDENCE)
    for key in damaged:
        assert f"{key} is damaged" in caplog.text
        assert where == EVIDENCE or store.read(key) == before[key]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b'{"revision": 1}', b"\xff"])
def test_a_damaged_pointer_is_named_and_kept(content: bytes, model: str, undisturbed: Path, tmp_path: Path) -> None:
    """Without the pointer, the revisions that it names would be deleted."""
    store = a_copy(undisturbed, tmp_path / "store")
    store.write(layout.CURRENT, content)

    with pytest.raises(SpecError, match="current.json is no pointer.*restore or delete it"):
        finish(the_order(model), store)

    assert store.read(layout.CURRENT) == content
    with pytest.raises(Damaged, match="current.json is damaged"):
        current_of(store)


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_is_repaired_or_named_and_never_published(
    seed: int,
    model: str,
    undisturbed: Path,
    expected: dict[str, dict[str, bytes]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = a_copy(undisturbed, tmp_path / "store")
    chance = random.Random(seed)
    key = chance.choice([key for key in store.list("") if not key.startswith(("revisions/", layout.CURRENT))])
    data = bytearray(store.read(key))
    before = bytes(data)
    place = chance.randrange(len(data))
    if chance.random() < 0.5:
        del data[place:]
    else:
        data[place] ^= 1 << chance.randrange(8)
    store.write(key, bytes(data))
    change = chance.choice(list(CHANGES))

    finish(the_order(model, **CHANGES[change]), store)

    assert_equal(published(store), expected[change], seen_again=key.startswith(layout.EVIDENCE))
    read_by = {"quality": (layout.SAMPLES, layout.LABELS), "threshold": (layout.SAMPLES, layout.EVIDENCE)}
    if key.startswith(read_by[change]):
        # the time of a zip's entry is never read; a label that lost only the name of its checksum is undamaged
        whole = store.read(key) == before or key.endswith(".npz") or b"checksum" not in store.read(key)
        assert f"{key} is damaged" in caplog.text or whole


def test_files_of_earlier_versions_are_accepted(
    model: str, undisturbed: Path, expected: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """Labels and recipes without a checksum, recipes without the image's SHA-256, evidence without a sample."""
    store = a_copy(undisturbed, tmp_path / "store")
    for key in [*keys_of(store, "samples/", ".json"), *keys_of(store, "labels/", ".json")]:
        content = json.loads(store.read(key))
        store.write(
            key, json.dumps({k: v for k, v in content.items() if k not in {"checksum", "imageSha256"}}).encode()
        )
    for key in keys_of(store, "evidence/", ".npz"):
        with np.load(io.BytesIO(store.read(key))) as arrays:
            stream = io.BytesIO()
            np.savez(stream, **{name: arrays[name] for name in arrays if name != "sample"})
        store.write(key, stream.getvalue())
    before = {key: store.read(key) for key in store.list("samples/")}

    for change, settings in CHANGES.items():
        finish(the_order(model, **settings), store)
        assert published(store) == expected[change]

    assert {key: store.read(key) for key in before} == before
