"""How far a run is: bars with rate and time left on a terminal, a plain line every few seconds elsewhere.

Both write to stderr, so that stdout is for results.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

from diffugen_generator.telemetry.progress import Meter, ProgressLines, duration, speed


class Advance(Protocol):
    """Tells how far a piece of work is."""

    def __call__(self, done: int, total: int) -> None:
        """Show the parts done and all parts."""

    def busy(self, words: str) -> None:
        """Show, until the next part is done, what takes its time."""


class Display(Protocol):
    """Shows how far a run is."""

    def task(self, what: str, unit: str) -> AbstractContextManager[Advance]:
        """Show one more piece of work, in some unit, while the block lasts."""
        ...


class PlainDisplay:
    """Lines for logs."""

    def __init__(self, console: Console) -> None:
        """Write to `console`."""
        self._console = console

    @contextmanager
    def task(self, what: str, unit: str) -> Iterator[Advance]:
        """Say how far `what` is while the block lasts."""
        yield _Lines(self._say, f"{what} ({unit})")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class BarDisplay:
    """Bars for people."""

    def __init__(self, console: Console) -> None:
        """Draw on `console`, a terminal."""
        self._console = console

    @contextmanager
    def task(self, what: str, unit: str) -> Iterator[Advance]:
        """Show a bar for `what` while the block lasts; it stays when it is full."""
        columns = (
            SpinnerColumn(finished_text="[green]✔[/]"),
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn(unit, style="dim"),
            _SpeedColumn(),
        )
        meter = Meter()
        with Progress(*columns, console=self._console, refresh_per_second=8) as bars:
            bar = bars.add_task(what, total=None, meter=meter)

            yield _Bar(what, bars, bar, meter)


class _Lines(ProgressLines):
    """Lines about one piece of work."""

    _busy_with = ""

    def __call__(self, done: int, total: int) -> None:
        self.update(done, total)

    def busy(self, words: str) -> None:
        if words != self._busy_with:  # a model is loaded for every shard, which is worth one line
            self._busy_with = words
            self._say(f"{self._what}: {words}")


class _Bar:
    """The bar of one piece of work."""

    def __init__(self, what: str, bars: Progress, bar: TaskID, meter: Meter) -> None:
        self._what = what
        self._bars = bars
        self._bar = bar
        self._meter = meter

    def __call__(self, done: int, total: int) -> None:
        self._meter.update(done, total)
        self._bars.update(self._bar, description=self._what, completed=done, total=total)

    def busy(self, words: str) -> None:
        self._bars.update(self._bar, description=words)


class _SpeedColumn(ProgressColumn):
    """Rate and time left, as `progress.Meter` finds them."""

    def render(self, task: Task) -> Text:
        meter: Meter = task.fields["meter"]
        if task.finished or meter.rate == 0:
            elapsed = task.finished_time if task.finished else None
            return Text(duration(elapsed) if elapsed else "", style="dim")
        left = f", {duration(meter.seconds_left)} left" if meter.seconds_left else ""
        return Text(f"{speed(meter.rate)}{left}", style="cyan")
