"""Shows the progress of a run: bars with rate and time left on a terminal, elsewhere a line every few seconds.

Both write to stderr; stdout has only results.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
from diffugen_generator.telemetry.reporter import Advance


class PlainDisplay:
    """Writes lines, for logs."""

    def __init__(self, console: Console) -> None:
        """Write to `console`."""
        self._console = console

    @contextmanager
    def task(self, what: str, unit: str) -> Iterator[Advance]:
        """Write the progress of `what` while the block runs."""
        yield _Lines(self._write, f"{what} ({unit})")

    def _write(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class BarDisplay:
    """Draws bars on a terminal."""

    def __init__(self, console: Console) -> None:
        """Draw on `console`, a terminal."""
        self._console = console

    @contextmanager
    def task(self, what: str, unit: str) -> Iterator[Advance]:
        """Show a bar for `what` while the block runs; a full bar stays on the screen."""
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
    """Writes lines for one task."""

    _activity = ""

    def __call__(self, done: int, total: int) -> None:
        self.update(done, total)

    def busy(self, activity: str) -> None:
        if activity != self._activity:  # every shard loads a model; one line is enough
            self._activity = activity
            self._write(f"{self._what}: {activity}")


class _Bar:
    """The bar of one task."""

    def __init__(self, what: str, bars: Progress, bar: TaskID, meter: Meter) -> None:
        self._what = what
        self._bars = bars
        self._bar = bar
        self._meter = meter

    def __call__(self, done: int, total: int) -> None:
        self._meter.update(done, total)
        self._bars.update(self._bar, description=self._what, completed=done, total=total)

    def busy(self, activity: str) -> None:
        self._bars.update(self._bar, description=activity)


class _SpeedColumn(ProgressColumn):
    """Shows rate and time left, as `progress.Meter` measures them."""

    def render(self, task: Task) -> Text:
        meter: Meter = task.fields["meter"]
        if task.finished or meter.rate == 0:
            elapsed = task.finished_time if task.finished else None
            return Text(duration(elapsed) if elapsed else "", style="dim")
        left = f", {duration(meter.seconds_left)} left" if meter.seconds_left else ""
        return Text(f"{speed(meter.rate)}{left}", style="cyan")
