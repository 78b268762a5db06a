"""A dataset that is published in shards is the same as one that a single process publishes."""

import io
import json
import random
import shutil
import tarfile
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest

from diffugen_api.orders import WorkOrder
from diffugen_generator.failures import Incomplete, Interrupted
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing import contact_sheet
from diffugen_generator.publishing.parts import Division
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.publish_shard import publish_shard
from diffugen_generator.publishing.report import report
from diffugen_generator.samples import labels
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.protocol import BINARY
from tests.generator.made import (
    DyingStore,
    a_finished_store,
    a_model,
    an_order,
    everything_in,
    manifest_lines,
    run_shards,
)
from tests.generator.publishing.test_pointer import DyingAtAnyCall, Killed, readable

ONE_FILE_A_SAMPLE = ("coco", "yolo", "voc", "masks", "imagefolder")
SPLITS = {"train": 0.5, "val": 0.3, "test": 0.2}
PROMPTS = {
    "templates": ["a {color} {object}"],
    "variables": {"object": ["ball", "square", "star"], "color": ["red", "blue"]},
    "samplesPerPrompt": 4,
}
GREEN = {"variables": {"color": ["green"]}}
SAMPLES = 48
_FOLDER = TemporaryDirectory(prefix="diffugen-tests-")
"""Of the datasets before they are published; each is made once."""
THREE = Division(3, 20)


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocks and chunks of the report begin in one shard and end in another, and a small contact sheet suffice."""
    monkeypatch.setattr(contact_sheet, "IMAGES", 5)
    monkeypatch.setattr(report, "SAMPLES", 8)
    monkeypatch.setattr(report, "ROWS", 32)


def a_dataset(folder: Path, *formats: str) -> tuple[WorkOrder, FolderStore]:
    """A dataset of two stages whose labels are made: with near duplicates, rejected images, and regions to ignore."""
    order, store = _made(*formats)
    shutil.copytree(store.root, folder / "store")
    return order, FolderStore(folder / "store")


@cache
def _made(*formats: str) -> tuple[WorkOrder, FolderStore]:
    folder = Path(_FOLDER.name) / "-".join(formats)
    model = a_model(folder / "model")
    stages = [
        {"name": "base", "txt2img": {"model": model, "steps": 20, "guidanceScale": 3}},
        {"name": "variants", "img2img": {"model": model, "from": "base", "strength": 0.5, "steps": 20, **GREEN}},
    ]
    order = an_order(
        model,
        prompts=PROMPTS,
        stages=stages,
        output={"formats": list(formats), "splits": SPLITS},
        quality={"duplicates": {"maxDistance": 0}, "minInstances": 2},
    )
    store = FolderStore(folder / "store")
    plan(order, store)
    while run_shards(order, store):
        plan(order, store)
    for number, key in enumerate(sorted(store.list("labels/"))):
        label = labels.loads(store.read(key))
        statistics = {"deviation": 40.0, "hash": f"{number % 40:016x}"}
        ignored = tuple(labels.Region(each.class_name, each.segmentation) for each in label.instances[:1])
        store.write(key, labels.dumps_label(replace(label, statistics=statistics, ignored=ignored * (number % 3 == 0))))
    return order, store


def published(order: WorkOrder, store: FolderStore, division: Division | None = None) -> dict[str, bytes]:
    """Publish, in shards where there is a division, and return the files of the revision."""
    if division is not None:
        for index in range(division.count):
            publish_shard(order, store, index, division)
    publish(order, store, division=division)
    return everything_in(store.root / "revisions" / order.revision)


def a_copy(store: FolderStore, name: str) -> FolderStore:
    target = store.root.parent / name
    shutil.copytree(store.root, target)
    return FolderStore(target)


@pytest.mark.parametrize("division", [THREE, Division(7, 7), Division(2, 100)], ids=str)
def test_shards_publish_the_same_bytes(tmp_path: Path, division: Division) -> None:
    order, store = a_dataset(tmp_path, *ONE_FILE_A_SAMPLE)
    sharded = a_copy(store, "sharded")

    whole = published(order, store)
    parts = published(order, sharded, division)

    assert sorted(parts) == sorted(whole)
    assert [path for path in whole if parts[path] != whole[path]] == []
    lines = manifest_lines(store, order.revision)
    assert len(lines) == SAMPLES
    assert {line["split"] for line in lines if line["accepted"]} == set(SPLITS)
    assert {"Duplicate", "TooFewInstances"} <= {line["reason"] for line in lines}
    assert not list(sharded.list("shards/" + order.revision + "/_publish/"))


def test_tar_and_parquet_files_have_the_same_samples_in_the_same_order(tmp_path: Path) -> None:
    order, store = a_dataset(tmp_path, "webdataset", "huggingface")
    sharded = a_copy(store, "sharded")

    whole, parts = published(order, store), published(order, sharded, THREE)

    assert members(parts, "train") == members(whole, "train") != []
    assert members(parts, "test") == members(whole, "test") != []
    index = json.loads(parts["webdataset/index.json"])
    assert [row["file"] for row in index["train"]] == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]
    assert sum(row["samples"] for row in index["train"]) * 2 == len(members(whole, "train"))
    assert rows(parts, "train") == rows(whole, "train") != []
    assert rows(parts, "validation") == rows(whole, "validation") != []
    assert parts["huggingface/README.md"] == whole["huggingface/README.md"]
    assert parts["manifest.jsonl.gz"] == whole["manifest.jsonl.gz"]
    assert "{000000..000002}.tar" in parts["README.md"].decode()


def members(files: dict[str, bytes], split: str) -> list[tuple[str, bytes]]:
    found = []
    for path in sorted(path for path in files if path.startswith(f"webdataset/{split}-")):
        with tarfile.open(fileobj=io.BytesIO(files[path])) as tar:
            found += [(each.name, extracted.read()) for each in tar if (extracted := tar.extractfile(each))]
    return found


def rows(files: dict[str, bytes], split: str) -> list[dict[str, Any]]:
    paths = sorted(path for path in files if path.startswith(f"huggingface/data/{split}-"))
    return [row for path in paths for row in pq.read_table(io.BytesIO(files[path])).to_pylist()]


@pytest.mark.parametrize("writes", [0, 2, 8])
def test_a_killed_shard_is_done_again(tmp_path: Path, writes: int) -> None:
    order, store = a_dataset(tmp_path, "coco", "yolo")
    sharded = a_copy(store, "sharded")
    whole = published(order, store)

    publish_shard(order, sharded, 0, THREE)
    with pytest.raises(ConnectionError):
        publish_shard(order, DyingStore(sharded.root, writes), 1, THREE)
    publish_shard(order, sharded, 2, THREE)
    with pytest.raises(Incomplete, match="shard 1 of the publication is not in the store"):
        publish(order, sharded, division=THREE)
    assert not sharded.exists("current.json")

    assert published(order, sharded, THREE) == whole


def test_a_publish_step_that_is_killed_while_it_joins_is_done_again(tmp_path: Path) -> None:
    order, store = a_dataset(tmp_path, "coco", "yolo")
    sharded = a_copy(store, "sharded")
    whole = published(order, store)
    for index in range(THREE.count):
        publish_shard(order, sharded, index, THREE)

    for writes in (0, 4, 9):
        with pytest.raises(ConnectionError):
            publish(order, DyingStore(sharded.root, writes), division=THREE)
        assert not sharded.exists("current.json")

    assert published(order, sharded, THREE) == whole


def test_after_a_kill_at_a_random_call_readers_have_the_old_revision_or_the_new_one(tmp_path: Path) -> None:
    model, division = a_model(tmp_path / "model"), Division(3, 2)
    prompts, output = {"templates": ["a ball"], "samplesPerPrompt": 6}, {"splits": {"train": 0.5, "val": 0.5}}
    former, order = (
        an_order(model, prompts=prompts, output=output, quality={"maxAreaFraction": most}) for most in (0.95, 0.9)
    )
    store = a_finished_store(former, tmp_path / "start")
    publish(former, store)
    plan(order, store)
    counting = DyingAtAnyCall(a_copy(store, "whole").root, 1_000_000)
    whole = published(order, counting, division)
    calls, seen = 1_000_000 - counting.calls, []

    # some anywhere, and some near the end, where the pointer moves
    draw = random.Random(20)
    for number in sorted(draw.sample(range(calls - 12), 3) + draw.sample(range(calls - 12, calls), 3)):
        killed = a_copy(store, f"killed-{number}")
        with pytest.raises(Killed):
            published(order, DyingAtAnyCall(killed.root, number), division)
        seen.append(readable(killed))
        assert published(order, killed, division) == whole, f"killed at call {number} of {calls}"
        assert readable(killed) == order.revision

    assert set(seen) == {former.revision, order.revision}
    assert sorted(seen, key=lambda each: each == order.revision) == seen, "once new, always new"


def test_a_shard_that_is_stopped_keeps_the_decisions_that_it_made(tmp_path: Path) -> None:
    order, store = a_dataset(tmp_path, "coco", "yolo")
    calls = Counter[str]()

    def after_a_few() -> bool:
        calls["stop"] += 1
        return calls["stop"] > 30

    with pytest.raises(Interrupted):
        publish_shard(order, store, 0, THREE, stop=after_a_few)
    assert len([key for key in store.list("shards/") if key.endswith(".jsonl.gz") and "decisions" in key]) == 1


class CountingStore(FolderStore):
    """A store that counts the reads of labels."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.labels = Counter[str]()

    def read(self, key: str) -> bytes:
        if key.startswith("labels/base/"):
            self.labels[key] += 1
        return super().read(key)


def test_all_shards_together_decide_once(tmp_path: Path) -> None:
    order, store = a_dataset(tmp_path, "coco", "yolo")
    division = Division(6, 8)

    reads = CountingStore(store.root)
    publish_shard(order, reads, 0, division)
    first = reads.labels.total()
    for index in range(1, 3):
        publish_shard(order, reads, index, division)

    # a label of the first stage is read as its own and as that of a source, to decide and to write
    assert reads.labels.total() - first < first
    assert len(reads.labels) == SAMPLES // 2


def test_other_pods_claims_do_not_stop_a_shard(tmp_path: Path) -> None:
    order, store = a_dataset(tmp_path, "coco", "yolo")
    sharded = a_copy(store, "sharded")
    whole = published(order, store)
    with pytest.raises(ConnectionError):
        publish_shard(order, DyingStore(sharded.root, 1), 2, THREE)
    assert [key for key in sharded.list("shards/") if key.endswith("00002.claim")]

    assert published(order, sharded, THREE) == whole


def test_a_label_that_changes_between_the_shards_is_found(tmp_path: Path) -> None:
    order, store = a_dataset(tmp_path, "coco", "yolo")
    publish_shard(order, store, 0, THREE)
    publish_shard(order, store, 1, THREE)
    key = label_of(store, order, 2 * THREE.size)
    label = labels.loads(store.read(key))
    store.write(
        key, labels.dumps_label(replace(label, ignored=(labels.Region("ball", label.instances[0].segmentation),) * 5))
    )
    fresh = a_copy(store, "fresh")

    with pytest.raises(Incomplete, match="changed during publication; plan again"):
        publish_shard(order, store, 2, THREE)

    assert published(order, store, THREE) == published(order, fresh)


def test_a_last_sample_that_is_rejected_after_the_decisions_is_found(tmp_path: Path) -> None:
    order, store = a_dataset(tmp_path, "coco", "yolo")
    publish_shard(order, store, 0, THREE)
    publish_shard(order, store, 1, THREE)
    other = a_copy(store, "only-for-its-numbers")
    publish(order, other)
    accepted = [number for number, line in enumerate(manifest_lines(other, order.revision)) if line["accepted"]]
    assert accepted[-1] > 2 * THREE.size
    key = label_of(store, order, accepted[-1])
    store.write(key, labels.dumps_label(replace(labels.loads(store.read(key)), instances=())))
    fresh = a_copy(store, "fresh")

    with pytest.raises(Incomplete, match="changed during publication; plan again"):
        publish_shard(order, store, 2, THREE)

    assert published(order, store, THREE) == published(order, fresh)


def label_of(store: FolderStore, order: WorkOrder, number: int) -> str:
    """The key of the label of an accepted sample, the first from `number` on."""
    other = a_copy(store, f"only-for-its-manifest-{number}")
    publish(order, other)
    line = next(line for line in manifest_lines(other, order.revision)[number:] if line["accepted"])
    (key,) = [key for key in store.list(f"labels/{line['stage']}/") if line["id"] in key]
    return key


def test_a_damaged_label_stops_a_shard_and_is_deleted(tmp_path: Path) -> None:
    order, store = a_dataset(tmp_path, "coco", "yolo")
    key = label_of(store, order, 30)
    store.write(key, b"{", BINARY)

    with pytest.raises(Incomplete, match="is damaged"):
        publish_shard(order, store, 0, THREE)

    assert not store.exists(key)


def test_a_damaged_image_stops_its_shard_and_no_other(tmp_path: Path) -> None:
    order, store = a_dataset(tmp_path, "coco", "yolo")
    key = label_of(store, order, 0)
    sample = key.rpartition("/")[2].removesuffix(".json")
    store.delete([f"samples/base/{sample[:2]}/{sample}/image.png"])

    publish_shard(order, store, 1, THREE)
    with pytest.raises(Incomplete, match=f"the image of sample {sample} is gone from the store; plan again"):
        publish_shard(order, store, 0, THREE)


def test_files_that_vanish_before_the_end_are_written_again(tmp_path: Path) -> None:
    order, store = a_dataset(tmp_path, "coco", "yolo")
    sharded = a_copy(store, "sharded")
    whole = published(order, store)
    for index in range(THREE.count):
        publish_shard(order, sharded, index, THREE)
    image = next(iter(sharded.list(f"revisions/{order.revision}/coco/train/")))
    sharded.delete([image])

    with pytest.raises(Incomplete, match="was deleted while it was being filled"):
        publish(order, sharded, division=THREE)

    assert published(order, sharded, THREE) == whole


def test_a_report_that_shows_a_part_of_the_samples_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST", 30)
    order, store = a_dataset(tmp_path, "coco", "yolo")
    sharded = a_copy(store, "sharded")

    whole, parts = published(order, store), published(order, sharded, Division(5, 10))

    shown = [path for path in whole if path.startswith("report")]
    assert [path for path in shown if parts.get(path) != whole[path]] == []
    assert 8 <= len([path for path in shown if path.startswith("report/samples/")]) * 8 < SAMPLES
