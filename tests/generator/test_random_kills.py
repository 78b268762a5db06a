"""SIGKILL at a random place of a run, of relabeling and of publishing: what is published then is as if undisturbed."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from rich.console import Console

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_generator.commands.display import PlainDisplay
from diffugen_generator.commands.run import run
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.published import current_of
from diffugen_generator.store.folder import FolderStore
from tests.generator.graphs import an_order, base, draw_all

KILLS = {"run": 8, "relabel": 6, "publish": 6}
CALLS = ("read", "read_tagged", "write", "replace", "upload", "exists", "copy", "delete", "sizes", "list", "folders")
"""The calls of a store that are counted; syncs of files, which are between the writing and the renaming, are too."""


def the_order(model: str, threshold: float = 0.4) -> WorkOrder:
    """Batches of one image, so that an image that is drawn again is identical."""
    labeling = {"attention": {"threshold": threshold}}
    prompts = {"templates": ["a {object}"], "variables": {"object": ["ball", "star"]}, "samplesPerPrompt": 3}
    changes: dict[str, Any] = {
        "run": {"batchSize": 1},
        "output": {"formats": ["coco"]},
        "labeling": labeling,
        "prompts": prompts,
    }
    return an_order([base(model, steps=1)], **changes)


def finish(order: WorkOrder, store: FolderStore) -> None:
    run(order, store, PlainDisplay(Console(file=io.StringIO())), device="cpu", stop=Event())


def published(store: FolderStore) -> dict[str, bytes]:
    """Every file of the current revision."""
    folder = layout.revision_folder(current_of(store)["revision"])
    return {key: store.read(key) for key in store.list(folder)}


@dataclass(frozen=True)
class Work:
    """What is killed, what it begins with, and what it publishes."""

    begin: Path
    order: WorkOrder
    work: Callable[[WorkOrder, FolderStore], Any]
    calls: list[str]
    expected: dict[str, bytes]

    def places(self, number: int, chance: random.Random) -> list[int]:
        """So many places to be killed at, as numbers of calls: half of them before the first file is published."""
        before = self.calls.index("upload")
        early = chance.sample(range(1, before + 1), number // 2)
        return sorted(early + chance.sample(range(before + 1, len(self.calls) + 1), number - number // 2))


def counted(patch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Kill this process at the call number `at`; return the list to which each call is added."""
    seen: list[str] = []

    def wrapped(owner: object, name: str) -> None:
        before = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            seen.append(name)
            if len(seen) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return before(*arguments, **options)

        patch.setattr(owner, name, call)

    for name in CALLS:
        wrapped(FolderStore, name)
    wrapped(os, "fsync")
    return seen


@pytest.fixture(scope="module")
def works(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Work]:
    empty, drawn, whole = (tmp_path_factory.mktemp(name) for name in ("empty", "drawn", "whole"))
    model = str(tiny_folder)
    draw_all(the_order(model), FolderStore(drawn))
    shutil.copytree(drawn, whole, dirs_exist_ok=True)
    publish(the_order(model), FolderStore(whole))

    def work(begin: Path, order: WorkOrder, do: Callable[[WorkOrder, FolderStore], Any]) -> Work:
        folder = tmp_path_factory.mktemp("undisturbed") / "store"
        shutil.copytree(begin, folder)
        with pytest.MonkeyPatch.context() as patch:
            calls = counted(patch, 0)
            do(order, FolderStore(folder))
        return Work(begin, order, do, calls, published(FolderStore(folder)))

    return {
        "run": work(empty, the_order(model), finish),
        "relabel": work(whole, the_order(model, 0.3), finish),
        "publish": work(drawn, the_order(model), publish),
    }


@pytest.mark.parametrize("what", ["run", "relabel", "publish"])
def test_after_a_kill_anywhere_the_next_try_publishes_the_same(
    what: str, works: dict[str, Work], tmp_path: Path
) -> None:
    work = works[what]
    for place in work.places(KILLS[what], random.Random(what)):
        folder = tmp_path / str(place)
        shutil.copytree(work.begin, folder)
        child = os.fork()
        if child == 0:
            with pytest.MonkeyPatch.context() as patch:
                counted(patch, place)
                work.work(work.order, FolderStore(folder))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"it ended before call {place} of {len(work.calls)}"
        assert os.WTERMSIG(status) == signal.SIGKILL

        work.work(work.order, FolderStore(folder))

        assert published(FolderStore(folder)) == work.expected, f"killed at call {place} of {len(work.calls)}"
        shutil.rmtree(folder)
