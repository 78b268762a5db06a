"""`diffugen run` in this process: what it prints when it is stopped."""

import io
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from rich.console import Console

from diffugen_api.contract import ShardCounts
from diffugen_generator.commands.display import BarDisplay
from diffugen_generator.commands.run import run
from diffugen_generator.failures import Interrupted
from diffugen_generator.stages import local_shards
from diffugen_generator.store.opening import open_folder
from tests.generator.made import a_model, an_order, do_by_hand


def test_a_stopped_run_prints_the_progress_of_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = an_order(a_model(tmp_path / "model"), run={"samplesPerShard": 10})
    store, stop = open_folder(tmp_path, order.namespace, order.name), Event()

    def by_hand(header: Any, rows: Any, store: Any, *, on_progress: Any, **_: Any) -> ShardCounts:
        for number, row in enumerate(rows, start=1):
            if header.index == 1 and number > 3 and stop.is_set():
                raise Interrupted("stopped with 3 of 6 samples done")
            do_by_hand(header, row, store)
            on_progress(ShardCounts(total=len(rows), drawn=number, labelled=number))
        return ShardCounts(total=len(rows), drawn=len(rows), labelled=len(rows))

    monkeypatch.setattr(
        local_shards, "run_shard", lambda header, *rest, **more: stop.set() or by_hand(header, *rest, **more)
    )
    with pytest.raises(
        Interrupted, match=r"^stopped with 13 of 16 images done; the same command continues from there$"
    ):
        run(order, store, BarDisplay(a_terminal()), device=None, stop=stop)

    stop.clear()
    monkeypatch.setattr(local_shards, "run_shard", by_hand)
    result = run(order, store, BarDisplay(a_terminal()), device=None, stop=stop)
    assert (result.stages[0].plan.reused, result.stages[0].counts.drawn) == (13, 3)


def test_a_progress_bar_shows_the_current_activity() -> None:
    console = a_terminal()

    with BarDisplay(console).task("stage base", "pictures") as advance:
        advance(0, 96)
        advance.busy("loading the model")

    assert isinstance(console.file, io.StringIO)
    assert "loading the model" in console.file.getvalue()


def a_terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120)
