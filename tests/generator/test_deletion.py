"""The delete step: it deletes everything of this dataset and nothing of others, even if it is killed on the way."""

import json
import shutil
from pathlib import Path

import pytest

from diffugen_api.contract import Outcome
from diffugen_api.orders import WorkOrder
from diffugen_generator.deletion import delete
from diffugen_generator.failures import BucketMissing, Interrupted, NotTheirs
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.published import dataset_of
from diffugen_generator.store.folder import FolderStore
from tests.generator.made import a_finished_store, a_model, an_order, everything_in, run_shards


@pytest.fixture
def order(tmp_path: Path) -> WorkOrder:
    return an_order(a_model(tmp_path / "model"), prompts={"templates": ["a ball", "a star"]})


def a_published_store(order: WorkOrder, folder: Path) -> FolderStore:
    store = a_finished_store(order, folder)
    publish(order, store)
    store.write(f"shards/{order.revision}/base/00000.json", b"{}")
    store.write(f"calibrations/{'a' * 32}/calibration.json", b"{}")
    return store


def test_everything_of_the_dataset_is_deleted(order: WorkOrder, tmp_path: Path) -> None:
    store = a_published_store(order, tmp_path / "store")
    count = len(everything_in(store.root))
    seen: list[int] = []

    outcome = delete(order, store, on_progress=seen.append)

    assert (outcome.ok, outcome.reason, outcome.message) == (True, "Deleted", f"{count} objects are deleted")
    assert everything_in(tmp_path / "store") == {}
    assert seen[-1] == count


def test_an_empty_store_needs_no_deletion(order: WorkOrder, tmp_path: Path) -> None:
    outcome = delete(order, FolderStore(tmp_path / "store"))

    assert (outcome.ok, outcome.message) == (True, "0 objects are deleted")


def test_a_deleted_bucket_needs_no_deletion(order: WorkOrder, tmp_path: Path) -> None:
    class Gone(FolderStore):
        def check(self) -> None:
            raise BucketMissing("no bucket")

    assert delete(order, Gone(tmp_path / "store")).ok


@pytest.mark.parametrize(
    "key",
    [
        "notes.txt",
        "samples/mine.png",
        "another/samples/base/ab/abcdef0123/image.png",
        "revisions/latest/report.pdf",
        # datasets under this dataset's prefix and namespace: `samples` and `plans` are also valid names of datasets
        "samples/current.json",
        "plans/current.json",
        "plans/samples/base/ab/abcdef0123/recipe.json",
        "revisions/plans/0123456789/plan.json",
    ],
)
def test_objects_of_others_stay(order: WorkOrder, tmp_path: Path, key: str) -> None:
    store = a_published_store(order, tmp_path / "store")
    store.write(key, b"{}")

    outcome = delete(order, store)

    assert set(everything_in(store.root)) == {key}
    assert outcome.message.endswith("; not DiffuGen's, so kept: 1 object")


def test_objects_of_another_dataset_are_not_deleted(order: WorkOrder, tmp_path: Path) -> None:
    store = a_published_store(order, tmp_path / "store")
    before = everything_in(store.root)
    namesake = order.model_copy(update={"name": "other"})

    with pytest.raises(NotTheirs, match="holds objects of vision/shapes, not of vision/other; nothing"):
        delete(namesake, store)

    assert everything_in(store.root) == before


def test_a_plan_of_another_dataset_among_ours_is_refused(order: WorkOrder, tmp_path: Path) -> None:
    store = a_published_store(order, tmp_path / "store")
    store.write("plans/0123456789/plan.json", json.dumps({"namespace": "vision", "name": "copied"}).encode())

    with pytest.raises(NotTheirs, match="vision/copied"):
        delete(order, store)


def test_objects_without_a_known_owner_are_refused(order: WorkOrder, tmp_path: Path) -> None:
    store = a_finished_store(order, tmp_path / "store")
    for key in list(store.list("plans/")):
        (store.root / key).unlink()

    with pytest.raises(NotTheirs, match="no plan and no dataset.json"):
        delete(order, store)


def test_an_unfinished_plan_does_not_prevent_deletion(order: WorkOrder, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    plan(order, store)
    (store.root / f"plans/{order.revision}/plan.json").unlink()

    assert delete(order, store).ok
    assert everything_in(store.root) == {}


class Killed(BaseException):
    """Simulates SIGKILL inside one process."""


class DyingStore(FolderStore):
    """A store whose user is killed at the n-th deletion of an object, in the store's order or in reverse."""

    def __init__(self, root: Path, deletions: int, *, backwards: bool) -> None:
        super().__init__(root)
        self.deletions, self.backwards = deletions, backwards

    def delete(self, keys: object) -> None:
        for key in sorted(keys, reverse=self.backwards):  # type: ignore[call-overload]  # strings
            if self.deletions <= 0:
                raise Killed
            self.deletions -= 1
            super().delete([key])


@pytest.mark.parametrize("backwards", [False, True])
def test_after_a_kill_anywhere_it_can_be_finished_or_the_dataset_made_again(
    order: WorkOrder, tmp_path: Path, *, backwards: bool
) -> None:
    whole = a_published_store(order, tmp_path / "whole")
    for deletions in range(0, len(everything_in(whole.root)), 4):
        store = FolderStore(tmp_path / f"killed-{deletions}")
        shutil.copytree(whole.root, store.root)
        with pytest.raises(Killed):
            delete(order, DyingStore(store.root, deletions, backwards=backwards))
        assert not deletions or not store.exists("current.json"), "readers find nothing any more"
        again = FolderStore(tmp_path / f"again-{deletions}")
        shutil.copytree(store.root, again.root)

        assert delete(order, store).ok
        assert everything_in(store.root) == {}

        # If the same dataset is applied again, it takes no incomplete part as complete.
        plan(order, again)
        run_shards(order, again)
        publish(order, again)
        for path in dataset_of(again)["files"]:
            assert again.exists(f"revisions/{order.revision}/{path}")


def test_it_can_be_stopped(order: WorkOrder, tmp_path: Path) -> None:
    store = a_published_store(order, tmp_path / "store")

    count = len(everything_in(store.root))

    with pytest.raises(Interrupted):
        delete(order, store, stop=lambda: True)

    assert delete(order, store) == Outcome(ok=True, reason="Deleted", message=f"{count} objects are deleted")
