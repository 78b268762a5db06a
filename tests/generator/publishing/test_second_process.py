"""The second process of publishing: the same results and errors as without it, also where it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffugen_generator.failures import Incomplete
from diffugen_generator.publishing import second_process
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.second_process import SecondProcess
from tests.generator.made import everything_in, manifest_lines
from tests.generator.publishing.report.datasets import Published, published


@pytest.fixture
def second() -> Iterator[SecondProcess]:
    second = SecondProcess()
    yield second
    second.close()


def process_of(divisor: int) -> tuple[int, float]:
    """Return the process that runs this, and a quotient."""
    return os.getpid(), 1 / divisor


def test_calls_are_answered_by_another_process(second: SecondProcess) -> None:
    calls = [second.call(process_of, number) for number in (2, 4)]

    (one, half), (other, quarter) = (each.result() for each in calls)
    assert (half, quarter) == (0.5, 0.25)
    assert one == other != os.getpid()


def test_an_error_is_that_of_the_function(second: SecondProcess) -> None:
    with pytest.raises(ZeroDivisionError):
        second.call(process_of, 0).result()

    assert second.call(process_of, 1).result()[0] != os.getpid(), "it answers the next call"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_if_it_has_ended_the_function_is_called_here(second: SecondProcess, end: signal.Signals) -> None:
    second.call(process_of, 1).result()
    assert second.process is not None
    second.process.send_signal(end)
    second.process.wait()

    assert second.call(process_of, 1).result() == (os.getpid(), 1.0)


def test_if_it_cannot_start_the_function_is_called_here(second: SecondProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/python")

    assert second.call(process_of, 1).result() == (os.getpid(), 1.0)


def test_it_ends_with_the_publishing() -> None:
    second = SecondProcess()
    second.call(process_of, 1).result()
    second.close()

    assert second.process is not None
    assert second.process.returncode == 0


def noted_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every publication have a second process; return the names of the functions that it will be called with."""
    names: list[str] = []
    call = SecondProcess.call

    def noted(self: SecondProcess, function: Callable[..., object], *args: object) -> object:
        names.append(function.__name__)
        return call(self, function, *args)

    monkeypatch.setattr(second_process, "_MANY", 1)
    monkeypatch.setattr(SecondProcess, "call", noted)
    return names


def again(made: Published) -> None:
    """Publish a dataset anew."""
    made.store.delete(list(made.store.list("revisions/")))
    publish(made.order, made.store)


def test_a_dataset_is_published_with_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = published(tmp_path)
    expected = everything_in(made.folder)
    calls = noted_calls(monkeypatch)

    again(made)

    assert set(calls) == {"sprite_of", "_found"}
    assert everything_in(made.folder) == expected


def test_a_damaged_recipe_and_a_missing_image_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = published(tmp_path)
    accepted = [line["image"] for line in manifest_lines(made.store, made.order.revision) if line["accepted"]]
    damaged = (made.store.root / accepted[9]).with_name("recipe.json")
    missing = made.store.root / accepted[-1]
    damaged.write_bytes(b"{")
    missing.unlink()
    calls = noted_calls(monkeypatch)

    with pytest.raises(Incomplete, match="and 1 more"):
        again(made)

    assert "_found" in calls
    assert not damaged.exists(), "it is deleted, so that it is made again"
