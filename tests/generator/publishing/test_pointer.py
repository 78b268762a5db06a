"""The pointer: moved last and to a complete revision, even if a process is killed or publishing is repeated."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import SpecError
from diffugen_generator.failures import Incomplete, Interrupted, Missing
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing import pointer as module
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.published import current_of, dataset_of
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.protocol import BINARY, Store
from tests.generator.made import a_finished_store, a_model, an_order, everything_in, run_shards


class Killed(BaseException):
    """Simulates SIGKILL inside one process."""


class DyingStore(FolderStore):
    """A store whose user is killed at the n-th write; after that, nothing is written."""

    def __init__(self, root: Path, writes: int) -> None:
        super().__init__(root)
        self.writes = writes

    def write(self, key: str, data: bytes, content_type: str = BINARY) -> None:
        self._spend()
        super().write(key, data, content_type)

    def upload(self, key: str, path: Path, content_type: str = BINARY) -> None:
        self._spend()
        super().upload(key, path, content_type)

    def copy(self, source: str, target: str) -> None:
        self._spend()
        super().copy(source, target)

    def _spend(self) -> None:
        if self.writes <= 0:
            raise Killed
        self.writes -= 1


@pytest.fixture
def model(tmp_path: Path) -> str:
    return a_model(tmp_path / "model")


def a_small_order(model: str, **changes: object) -> WorkOrder:
    return an_order(model, prompts={"templates": ["a ball", "a star"], "samplesPerPrompt": 2}, **changes)


def the_clock() -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def readable(store: FolderStore) -> str | None:
    """Return the revision that readers find, after reading all of its files; None if they find none."""
    try:
        current = current_of(store)
    except Missing:
        return None
    dataset = dataset_of(store)
    folder = current["dataset"].removesuffix("dataset.json")
    for path, file in dataset["files"].items():
        data = store.read(folder + path)
        assert file == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert {folder + path for path in (*dataset["files"], "dataset.json")} == set(store.list(folder))
    for split, count in dataset["splits"].items():
        for images in (f"{folder}coco/{split}/", f"{folder}yolo/images/{split}/", f"{folder}yolo/labels/{split}/"):
            assert len(list(store.list(images))) == count
    return str(dataset["revision"])


def test_after_a_kill_at_any_write_readers_keep_the_former_dataset(model: str, tmp_path: Path) -> None:
    prompts = {"templates": ["a ball"], "samplesPerPrompt": 2}
    former, order = (an_order(model, prompts=prompts, quality={"maxAreaFraction": most}) for most in (0.95, 0.9))
    store = a_finished_store(former, tmp_path / "store")
    publish(former, store, clock=the_clock)
    plan(order, store)
    before = tmp_path / "before"
    shutil.copytree(store.root, before)
    counting = DyingStore(store.root, writes=1_000_000)
    publish(order, counting, clock=the_clock)
    expected = everything_in(store.root)

    for writes in range(1_000_000 - counting.writes):
        shutil.rmtree(store.root)
        shutil.copytree(before, store.root)  # at the same path, which is part of some files

        with pytest.raises(Killed):
            publish(order, DyingStore(store.root, writes), clock=the_clock)
        assert readable(store) == former.revision

        publish(order, store, clock=the_clock)
        assert readable(store) == order.revision
        assert everything_in(store.root) == expected


def test_publishing_twice_changes_nothing(model: str, tmp_path: Path) -> None:
    order = a_small_order(model)
    store = a_finished_store(order, tmp_path / "store")
    first = publish(order, store)
    before = everything_in(store.root)

    second = publish(order, DyingStore(store.root, writes=0))

    assert second == first
    assert everything_in(store.root) == before


def test_the_pointer_has_the_paths_of_all_files(model: str, tmp_path: Path) -> None:
    order = a_small_order(model)
    store = a_finished_store(order, tmp_path / "store")

    outcome = publish(order, store, clock=the_clock)

    assert outcome.reason == "Published"
    assert outcome.published
    assert current_of(store) == {
        "revision": order.revision,
        "uri": f"{store.root}/revisions/{order.revision}",
        "manifestSHA256": outcome.published.manifest_sha256,
        "dataset": f"revisions/{order.revision}/dataset.json",
        "publishedAt": "2026-01-02T03:04:05Z",
        "samples": 4,
        "history": [],
    }
    assert dataset_of(store)["files"]["manifest.jsonl.gz"]["sha256"] == outcome.published.manifest_sha256
    assert outcome.published.accepted_by_stage == {"base": 4}


def test_returning_to_a_published_revision_only_moves_the_pointer(model: str, tmp_path: Path) -> None:
    order, other = a_small_order(model), a_small_order(model, quality={"maxAreaFraction": 0.9})
    store = a_finished_store(order, tmp_path / "store")
    publish(order, store)
    plan(other, store)
    publish(other, store)
    assert readable(store) == other.revision

    publish(order, DyingStore(store.root, writes=1))

    assert readable(store) == order.revision


def test_a_replaced_model_gets_its_own_folder(tmp_path: Path) -> None:
    model = a_model(tmp_path / "model")
    order = a_small_order(model)
    store = a_finished_store(order, tmp_path / "store")
    former = publish(order, store).published
    a_model(tmp_path / "model", weights="other weights")
    plan(order, store)
    assert run_shards(order, store) == 4

    outcome = publish(order, store)

    assert former
    assert outcome.published
    assert outcome.published.revision == former.revision
    assert outcome.published.uri != former.uri
    assert readable(store) == order.revision
    assert store.exists(f"revisions/{order.revision}/dataset.json"), "readers of the former keep it"


def test_a_sample_without_labels_is_an_error(model: str, tmp_path: Path) -> None:
    order = a_small_order(model)
    store = a_finished_store(order, tmp_path / "store")
    [label, *_] = store.list("labels/")
    (store.root / label).unlink()

    with pytest.raises(Incomplete, match="stage 'base' is not finished: sample [0-9a-f]{32} has no labels; plan again"):
        publish(order, store)

    assert readable(store) is None


def test_a_missing_image_is_an_error(model: str, tmp_path: Path) -> None:
    order = a_small_order(model)
    store = a_finished_store(order, tmp_path / "store")
    [image, *_] = [key for key in store.list("samples/") if key.endswith(".png")]
    (store.root / image).unlink()

    with pytest.raises(Incomplete, match="is gone from the store; plan again"):
        publish(order, store)

    assert readable(store) is None


def test_missing_images_are_drawn_again_after_the_next_plan(model: str, tmp_path: Path) -> None:
    order = a_small_order(model)
    store = a_finished_store(order, tmp_path / "store")
    rasters = [key for key in store.list("samples/") if key.endswith(".png")][:2]
    before = {key: store.read(key) for key in rasters}
    for key in rasters:
        (store.root / key).unlink()
    with pytest.raises(Incomplete, match=r"the image of sample [0-9a-f]{32} \(and 1 more\) is gone"):
        publish(order, store)

    plan(order, store)

    assert run_shards(order, store) == 2
    assert {key: store.read(key) for key in rasters} == before
    assert publish(order, store).ok


def test_without_a_plan_nothing_is_published(model: str, tmp_path: Path) -> None:
    with pytest.raises(Incomplete, match="there is no plan"):
        publish(a_small_order(model), FolderStore(tmp_path / "store"))


def test_an_empty_dataset_is_not_published(model: str, tmp_path: Path) -> None:
    order = a_small_order(model)
    store = a_finished_store(order, tmp_path / "store")
    publish(order, store)
    strict = a_small_order(model, quality={"minAreaFraction": 0.9, "maxAreaFraction": 1})
    plan(strict, store)
    rejected = r"spec.quality: all 4 images are rejected \(TooFewInstances 4\): lower quality.minAreaFraction; lower"

    with pytest.raises(SpecError, match=rejected) as failure:
        publish(strict, store)

    assert failure.value.reason == "NothingAccepted"
    assert readable(store) == order.revision
    assert store.exists(f"revisions/{strict.revision}/manifest.jsonl.gz")


def test_publishing_can_be_stopped(model: str, tmp_path: Path) -> None:
    order = a_small_order(model)
    store = a_finished_store(order, tmp_path / "store")

    with pytest.raises(Interrupted, match="publishing was stopped"):
        publish(order, store, stop=lambda: True)

    assert readable(store) is None


def test_labels_are_read_ahead_in_limited_numbers(model: str, tmp_path: Path) -> None:
    read: list[str] = []

    class Listening(FolderStore):
        def read(self, key: str) -> bytes:
            read.append(key)
            return super().read(key)

    order = an_order(model, prompts={"templates": ["a ball"], "samplesPerPrompt": 400}, output={"splits": {"train": 1}})
    a_finished_store(order, tmp_path / "store")
    most_ahead: list[int] = []

    def on_progress(done: int, total: int) -> None:
        most_ahead.append(sum(key.startswith("labels/") for key in read) - done)

    publish(order, Listening(tmp_path / "store"), on_progress=on_progress)

    assert max(most_ahead) <= 256 + 8 + 64 + 4  # labels, a batch of them, and images with theirs
    assert sum(key.startswith("labels/") for key in read) == 400


def test_dataset_json_is_the_same_with_any_run_settings(model: str, tmp_path: Path) -> None:
    orders: Iterator[WorkOrder] = (a_small_order(model, run={"samplesPerShard": size}) for size in (1, 100))
    stores = [a_finished_store(order, tmp_path / str(n)) for n, order in enumerate(orders)]

    for number, store in enumerate(stores):
        publish(a_small_order(model, run={"parallelism": number + 1}), store)

    one, other = (dataset_of(store) for store in stores)
    assert json.dumps(one) == json.dumps(other)
    assert layout.CURRENT in everything_in(stores[0].root)


class Overtaken(FolderStore):
    """A store in which another process publishes between the reading and the writing of the pointer."""

    def __init__(self, root: Path, meanwhile: Callable[[], object]) -> None:
        super().__init__(root)
        self.meanwhile: Callable[[], object] | None = meanwhile

    def replace(self, key: str, data: bytes, tag: str, content_type: str = BINARY) -> bool:
        if self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return super().replace(key, data, tag, content_type)


def test_a_revision_that_another_publishes_at_the_same_time_is_kept(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, other = a_small_order(model), a_small_order(model, quality={"maxAreaFraction": 0.9})
    store = a_finished_store(order, tmp_path / "store")
    plan(other, store)

    def publish_other() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(module, "prune", lambda *_, **__: 0)  # as if killed before it prunes
            publish(other, store)

    publish(order, Overtaken(store.root, publish_other))

    assert readable(store) == order.revision
    assert [row["revision"] for row in current_of(store)["history"]] == [other.revision]
    assert store.exists(f"revisions/{other.revision}/dataset.json")


def test_the_pointer_never_moves_to_a_revision_that_another_publisher_deleted(model: str, tmp_path: Path) -> None:
    order, other = a_small_order(model), a_small_order(model, quality={"maxAreaFraction": 0.9})
    store = a_finished_store(order, tmp_path / "store")
    plan(other, store)

    with pytest.raises(Incomplete, match="was deleted by another publisher of this dataset; plan again"):
        publish(order, Overtaken(store.root, lambda: publish(other, store)))

    assert readable(store) == other.revision
    plan(order, store)
    publish(order, store)
    assert readable(store) == order.revision


def test_pruning_uses_the_current_pointer(model: str, tmp_path: Path) -> None:
    """A moves the pointer, B publishes, A prunes."""

    class Slow(FolderStore):
        def folders(self, prefix: str) -> Iterator[str]:
            if prefix == layout.REVISIONS and self.pending:
                self.pending = False
                publish(other, store)
            return super().folders(prefix)

        pending = True

    order, other = a_small_order(model), a_small_order(model, quality={"maxAreaFraction": 0.9})
    store = a_finished_store(order, tmp_path / "store")
    plan(other, store)

    publish(order, Slow(store.root))

    assert readable(store) == other.revision
    assert [row["revision"] for row in current_of(store)["history"]] == [order.revision]


CALLS = frozenset(name for name in vars(Store) if not name.startswith("_")) - {"uri", "check"}
"""The methods by which a publisher uses a store."""


class DyingAtAnyCall(FolderStore):
    """A store whose user is killed at the n-th call of any method, of any thread; after that, nothing is done."""

    def __init__(self, root: Path, calls: int) -> None:
        super().__init__(root)
        self.calls = calls
        self.seen: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if name in CALLS:
            object.__getattribute__(self, "seen").add(name)
            self._spend()
        return super().__getattribute__(name)

    def _spend(self) -> None:
        left = object.__getattribute__(self, "calls")
        if left <= 0:
            raise Killed
        self.calls = left - 1


def test_after_a_kill_at_any_call_readers_have_the_old_revision_or_the_new_one(model: str, tmp_path: Path) -> None:
    prompts, output = {"templates": ["a ball"], "samplesPerPrompt": 2}, {"splits": {"train": 0.5, "val": 0.5}}
    former, order = (
        an_order(model, prompts=prompts, output=output, quality={"maxAreaFraction": most}) for most in (0.95, 0.9)
    )
    store = a_finished_store(former, tmp_path / "start")
    publish(former, store, clock=the_clock)
    store.write(f"{layout.REVISIONS}0123456789/README.md", b"of a publisher that ended early")
    plan(order, store)
    shutil.copytree(store.root, tmp_path / "count")
    counting = DyingAtAnyCall(tmp_path / "count", 1_000_000)
    publish(order, counting, clock=the_clock)
    calls, seen = 1_000_000 - counting.calls, set()
    assert {"delete", "folders", "replace"} <= counting.seen, "it also prunes"

    for number in range(calls):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(store.root, folder)
        with pytest.raises(Killed):
            publish(order, DyingAtAnyCall(folder, number), clock=the_clock)
        seen.add(readable(FolderStore(folder)))

    assert seen == {former.revision, order.revision}
    publish(order, FolderStore(folder), clock=the_clock)
    assert readable(FolderStore(folder)) == order.revision
