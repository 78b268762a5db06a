"""`diffugen run` in this process: what it prints when it is stopped, and that it can be reproduced."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from rich.console import Console

from diffugen_api.contract import ShardCounts
from diffugen_api.plan import SpecError
from diffugen_generator.commands.display import BarDisplay
from diffugen_generator.commands.run import run
from diffugen_generator.failures import Interrupted
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.stages import local_shards
from diffugen_generator.stages.model_session import ModelSession
from diffugen_generator.store.opening import open_folder
from tests.generator.graphs import an_order as a_graph
from tests.generator.graphs import base, redrawn
from tests.generator.made import a_model, an_order, do_by_hand, everything_in


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


def test_a_run_tries_the_schedulers_before_it_draws(own_model: Path, tmp_path: Path) -> None:
    scheduler = own_model / "scheduler" / "scheduler_config.json"
    changed = {"_class_name": "EulerAncestralDiscreteScheduler", "beta_end": 0.999}
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | changed))
    order = an_order(str(own_model))
    store = open_folder(tmp_path / "store", order.namespace, order.name)

    with pytest.raises(SpecError, match=r"^spec\.stages\[0\]\.txt2img\.steps: "):
        run(order, store, BarDisplay(a_terminal()), device="cpu", stop=Event())


def test_a_progress_bar_shows_the_current_activity() -> None:
    console = a_terminal()

    with BarDisplay(console).task("stage base", "pictures") as advance:
        advance(0, 96)
        advance.busy("loading the model")

    assert isinstance(console.file, io.StringIO)
    assert "loading the model" in console.file.getvalue()


class Recorder:
    """A display that keeps each count and each activity in a list."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextmanager
    def task(self, what: str, unit: str) -> Iterator[Any]:
        yield self

    def __call__(self, done: int, total: int) -> None:
        self.told.append(f"{done}/{total}")

    def busy(self, activity: str) -> None:
        self.told.append(activity)


def test_the_activity_ends_when_the_model_is_loaded_and_no_secret_of_run_is_stored(
    tiny_model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = {"spec": {"containers": [{"name": "generator", "env": [{"name": "HF_TOKEN", "value": "hf_secret"}]}]}}
    order = an_order(tiny_model.uri, run={"podTemplate": secret}, quality={"minInstances": 0})
    display = Recorder()
    draw = ModelSession.draw
    monkeypatch.setattr(ModelSession, "draw", lambda *given: display.told.append("drawing") or draw(*given))

    run(order, open_folder(tmp_path, order.namespace, order.name), display, device="cpu", stop=Event())

    loading = display.told.index("loading the model")
    assert [told.partition("/")[0] for told in display.told[loading + 1 : loading + 3]] == ["0", "drawing"]
    files = everything_in(tmp_path)
    assert [name for name in files if name.endswith("spec.json")]
    assert [name for name, data in files.items() if b"hf_secret" in data] == []


def a_terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120)


@pytest.fixture
def torch_as_before() -> Iterator[None]:
    """Restore what `--reproduce` sets for the whole process."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("torch_as_before")
def test_a_reproduced_run_gives_the_same_bytes_even_if_it_was_stopped(
    tiny_model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(2)
    order = a_graph([base(tiny_model.uri), redrawn("mud", "base")])
    drawn_at_once: list[int] = []
    draw, stop = ModelSession.draw, Event()

    def watched(session: ModelSession, samples: Any, sources: Any = ()) -> Any:
        drawn_at_once.append(len(samples))
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        if len(drawn_at_once) == 3:
            stop.set()
        return draw(session, samples, sources)

    def reproduced(folder: Path) -> dict[str, bytes]:
        display = BarDisplay(a_terminal())
        store = open_folder(folder, order.namespace, order.name)
        with suppress(Interrupted):
            run(order, store, display, device="cpu", stop=stop, reproduce=True)
        if stop.is_set():
            stop.clear()
            run(order, store, display, device="cpu", stop=stop, reproduce=True)
        kept = ("samples/", "evidence/", "labels/")
        return {key: data for key, data in everything_in(store.root).items() if key.startswith(kept)}

    monkeypatch.setattr(ModelSession, "draw", watched)
    stopped, whole = reproduced(tmp_path / "stopped"), reproduced(tmp_path / "whole")
    assert set(drawn_at_once) == {1}
    assert len(whole) == 2 * len(drawn_at_once)
    assert stopped == whole
