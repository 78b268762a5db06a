"""The interface through which a run reports its progress; `commands.display` implements it for terminals and logs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Advance(Protocol):
    """Reports the progress of a task."""

    def __call__(self, done: int, total: int) -> None:
        """Show the number of parts done and of all parts."""

    def busy(self, activity: str) -> None:
        """Show `activity`, such as "loading the model", until the next part is done."""


class Reporter(Protocol):
    """Reports the progress of a run, task by task."""

    def task(self, what: str, unit: str) -> AbstractContextManager[Advance]:
        """Show a task, counted in `unit`, while the block runs."""
        ...
