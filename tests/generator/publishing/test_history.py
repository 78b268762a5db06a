"""Former revisions: a limited number stays, shared files stay, and a killed process leaves readers whole datasets."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from diffugen_api.contract import Published
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import SpecError
from diffugen_generator.failures import Incomplete, Interrupted, StoreRefused
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing import filling as module
from diffugen_generator.publishing.history import prune
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.published import current_of, dataset_of
from diffugen_generator.store.folder import FolderStore
from tests.generator.made import a_finished_store, a_model, an_order, everything_in, run_shards


@pytest.fixture
def model(tmp_path: Path) -> str:
    return a_model(tmp_path / "model")


def the_order(model: str, number: int, limit: int = 2) -> WorkOrder:
    """The order of one of several revisions over the same images."""
    prompts = {"templates": ["a ball", "a star"]}
    return an_order(model, prompts=prompts, quality={"minAreaFraction": number / 10_000}, revisionHistoryLimit=limit)


def published(store: FolderStore, order: WorkOrder, day: int) -> Published:
    plan(order, store)
    outcome = publish(order, store, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day))
    assert outcome.published is not None
    return outcome.published


def after(model: str, folder: Path, numbers: list[int], limit: int = 2) -> tuple[FolderStore, list[WorkOrder]]:
    """Return a store in which these revisions were published one after the other."""
    orders = [the_order(model, number, limit) for number in numbers]
    store = a_finished_store(orders[0], folder)
    for day, order in enumerate(orders, start=1):
        published(store, order, day)
    return store, orders


def test_the_current_revision_and_the_configured_number_before_it_stay(model: str, tmp_path: Path) -> None:
    store, orders = after(model, tmp_path / "store", [1, 2, 3, 4, 5])
    drawn = len(list(store.list("samples/")))

    last = published(store, orders[-1], 9)

    kept = [order.revision for order in orders[-3:]]
    assert sorted(store.folders("revisions/")) == sorted(kept)
    assert sorted(store.folders("plans/")) == sorted(kept)
    assert current_of(store)["revision"] == kept[-1]
    assert [(former.revision, former.published_at, former.samples) for former in last.history] == [
        (kept[1], "2026-01-05T00:00:00Z", 2),
        (kept[0], "2026-01-04T00:00:00Z", 2),
    ]
    assert last.published_at == "2026-01-06T00:00:00Z", "the time of the first try"
    assert drawn == len(list(store.list("samples/"))) == 4


def test_shard_reports_of_deleted_revisions_are_deleted(model: str, tmp_path: Path) -> None:
    store, orders = after(model, tmp_path / "store", [1, 2, 3])
    for order in orders:
        store.write(f"shards/{order.revision}/base/00000.json", b"{}")

    published(store, the_order(model, 4), 4)

    assert sorted(store.folders("shards/")) == sorted(order.revision for order in orders[1:])


def test_a_revision_that_is_published_again_is_in_the_history_once(model: str, tmp_path: Path) -> None:
    store, orders = after(model, tmp_path / "store", [1, 2])

    back = published(store, orders[0], 5)

    assert [former.revision for former in back.history] == [orders[1].revision]
    assert dataset_of(store)["revision"] == orders[0].revision


def test_a_smaller_limit_applies_from_the_next_publication(model: str, tmp_path: Path) -> None:
    store, orders = after(model, tmp_path / "store", [1, 2, 3, 4], limit=10)
    assert len(list(store.folders("revisions/"))) == 4

    fewer = published(store, the_order(model, 4, limit=1), 6)

    assert [former.revision for former in fewer.history] == [orders[2].revision]
    assert sorted(store.folders("revisions/")) == sorted(order.revision for order in orders[2:])


def test_images_of_another_model_in_the_same_revision_have_their_own_folder(tmp_path: Path) -> None:
    store, (order,) = after(a_model(tmp_path / "model"), tmp_path / "store", [1])
    a_model(tmp_path / "model", weights="other weights")
    plan(order, store)
    run_shards(order, store)

    outcome = published(store, order, 2)

    (former,) = outcome.history
    assert (former.folder, former.revision) == (order.revision, order.revision)
    assert outcome.uri.rsplit("/", 1)[1].startswith(f"{order.revision}-")
    assert len(list(store.folders("plans/"))) == 1, "one plan, as it is one revision"


class Killed(BaseException):
    """Simulates SIGKILL inside one process."""


class DyingStore(FolderStore):
    """A store whose user is killed at the n-th request to delete."""

    def __init__(self, root: Path, deletions: int) -> None:
        super().__init__(root)
        self.deletions = deletions

    def delete(self, keys: object) -> None:
        if self.deletions <= 0:
            raise Killed
        self.deletions -= 1
        super().delete(keys)  # type: ignore[arg-type]  # passed on unchanged


def test_after_a_kill_at_any_deletion_readers_have_a_whole_dataset_and_a_retry_prunes(
    model: str, tmp_path: Path
) -> None:
    order = the_order(model, 4)
    whole, _ = after(model, tmp_path / "whole", [1, 2, 3, 4])
    expected = set(everything_in(whole.root))

    before, _ = after(model, tmp_path / "before", [1, 2, 3])
    for deletions in range(100):
        store = FolderStore(tmp_path / f"killed-{deletions}")
        shutil.copytree(before.root, store.root)
        plan(order, store)
        dying = DyingStore(store.root, deletions)
        try:
            publish(order, dying)
        except Killed:
            assert current_of(store)["revision"] == order.revision
            for entry in current_of(store)["history"]:
                assert store.exists(entry["dataset"])
            publish(order, store)
        assert set(everything_in(store.root)) == expected
        if dying.deletions:
            assert deletions > 1
            return
    raise AssertionError("it never came to its end")


def test_a_store_that_does_not_delete_is_reported_and_the_dataset_is_published(model: str, tmp_path: Path) -> None:
    class Keeping(FolderStore):
        def delete(self, keys: object) -> None:
            raise StoreRefused("spec.output.s3: may not delete; allow it")

    store, _ = after(model, tmp_path / "store", [1, 2, 3])
    order = the_order(model, 4)
    plan(order, store)

    outcome = publish(order, Keeping(store.root))

    assert outcome.ok
    assert outcome.message.endswith("former revisions could not be deleted: spec.output.s3: may not delete; allow it")
    assert current_of(store)["revision"] == order.revision


def test_pruning_can_be_stopped_and_continued(model: str, tmp_path: Path) -> None:
    store, orders = after(model, tmp_path / "store", [1, 2])
    kept = [orders[1].revision]

    with pytest.raises(Interrupted):
        prune(store, lambda: kept, stop=lambda: True)
    prune(store, lambda: kept)

    assert list(store.folders("revisions/")) == kept


def test_objects_of_others_stay(model: str, tmp_path: Path) -> None:
    store, orders = after(model, tmp_path / "store", [1])
    for key in ("revisions/mine/x", "plans/notes/y"):
        store.write(key, b"mine")

    prune(store, lambda: [orders[0].revision])

    assert store.exists("revisions/mine/x")
    assert store.exists("plans/notes/y")


def test_a_publisher_whose_folder_another_one_pruned_publishes_nothing(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, (former,) = after(model, tmp_path / "store", [1])
    order = the_order(model, 2)
    plan(order, store)
    found = module.card  # type: ignore[attr-defined]  # the module does not export its imports

    def pruned_meanwhile(*arguments: Any, **named: Any) -> str:
        prune(store, lambda: [former.revision])
        return found(*arguments, **named)

    monkeypatch.setattr(module, "card", pruned_meanwhile)
    with pytest.raises(Incomplete, match="deleted while it was being filled"):
        publish(order, store)

    assert dataset_of(store)["revision"] == former.revision


@pytest.mark.parametrize("text", ["[" * 4000, "null", "[]", "{}", '{"dataset": 7, "publishedAt": 8}', "<html>"])
def test_an_invalid_pointer_is_reported_and_kept_and_nothing_is_deleted(text: str, model: str, tmp_path: Path) -> None:
    store, (order,) = after(model, tmp_path / "store", [1])
    store.write("current.json", text.encode(), "application/json")
    kept = set(store.list("revisions/"))

    with pytest.raises(SpecError, match="current.json is no pointer: restore or delete it"):
        publish(order, store)

    assert store.read("current.json") == text.encode()
    assert kept <= set(store.list("revisions/"))


def test_unreadable_rows_of_a_history_are_left_out(model: str, tmp_path: Path) -> None:
    store, orders = after(model, tmp_path / "store", [1, 2])
    pointer = current_of(store)
    wrong: list[Any] = [
        7,
        {"dataset": "revisions/x/dataset.json", "publishedAt": "x" * 40, "samples": 1},
        {"samples": 1},
    ]
    store.write("current.json", json.dumps({**pointer, "history": wrong}).encode(), "application/json")

    assert [row.revision for row in published(store, the_order(model, 3), 9).history] == [orders[-1].revision]
