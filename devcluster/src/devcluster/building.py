"""Compiles Go packages and reports the progress.

`go build -v` prints each package when it starts to compile it; `go list -deps` gives their number before. From an empty
cache that is about 2,500 packages and many minutes, and without progress people would think that the program hangs.
"""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from devcluster.toolchain import go_environment

_PLAIN_LINE_EVERY_S = 15.0


class Reporter(Protocol):
    """Receives the progress."""

    def line(self, text: str) -> None:
        """Show a line about work that has begun or ended."""

    def started(self, title: str, total: int) -> None:
        """Show that work of `total` steps begins."""

    def advanced(self, done: int) -> None:
        """Show that `done` steps are finished."""

    def finished(self) -> None:
        """Show that the work is finished."""


class ConsoleReporter:
    """Shows a bar with rate and time left on a terminal; elsewhere a plain line from time to time."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._title, self._total = "", 0
        self._began = self._last_line = 0.0

    def line(self, text: str) -> None:
        """Print it."""
        self._console.print(text)

    def started(self, title: str, total: int) -> None:
        """Show the bar, or print the first line."""
        self._title, self._total = title, total
        self._began = self._last_line = time.monotonic()
        if not self._console.is_terminal:
            self.line(f"{title}: {total} packages")
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._progress.add_task(title, total=total, rate="")
        self._progress.start()

    def advanced(self, done: int) -> None:
        """Move the bar, or print a line if the last one was printed long ago."""
        now = time.monotonic()
        rate = done / max(now - self._began, 1e-3)
        if self._progress is not None:
            task = self._progress.tasks[0].id
            self._progress.update(task, completed=done, rate=f"{rate:.1f}/s")
            return
        if now - self._last_line < _PLAIN_LINE_EVERY_S:
            return
        self._last_line = now
        minutes_left = (self._total - done) / max(rate, 1e-3) / 60
        self.line(f"{self._title}: {done}/{self._total} packages, {rate:.1f}/s, about {minutes_left:.0f} min left")

    def finished(self) -> None:
        """Remove the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self.line(f"{self._title}: done in {time.monotonic() - self._began:.0f} s")


class BuildError(RuntimeError):
    """The compiler failed; the message ends with its last lines."""


def build_packages(
    go: Path, module: Path, packages: Sequence[str], *, ldflags: str, output: Path, report: Reporter
) -> None:
    """Compile `packages` of the module in directory `module` into files in `output`."""
    report.line(f"resolving the packages of {module.name} (the first time, their sources are fetched)")
    total = _count_packages(go, module, packages)
    command = [str(go), "build", "-v", "-trimpath", "-ldflags", ldflags, "-o", f"{output}/", *packages]
    report.started(f"compiling {module.name}", total)
    with subprocess.Popen(
        command, cwd=module, env=go_environment(), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as build:
        assert build.stderr is not None
        lines: list[str] = []
        for line in build.stderr:
            lines.append(line.rstrip())
            report.advanced(min(len(lines), total))
    report.finished()
    if build.returncode != 0:
        raise BuildError(f"go build failed in {module}:\n" + "\n".join(lines[-20:]))


def _count_packages(go: Path, module: Path, packages: Sequence[str]) -> int:
    listing = subprocess.run(
        [go, "list", "-deps", *packages],
        cwd=module,
        env=go_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        raise BuildError(f"go list failed in {module}:\n{listing.stderr[-4000:]}")
    return len(listing.stdout.splitlines())
