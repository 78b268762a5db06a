"""Where a stage's time goes: seconds by part, and what waits beside the model.

The parts overlap: drawing and looking are the model's, the others are done beside it by several threads. So their
seconds may add up to more than passed; a part whose seconds grow as fast as the clock is what the others wait for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from threading import Lock


class Part(StrEnum):
    """What a sample's time is spent on."""

    LOAD = "load"
    """Finding the model and loading it."""
    DRAW = "draw"
    LOOK = "look"
    """The model's pass for evidence."""
    DECIDE = "decide"
    """From evidence to instances."""
    ENCODE = "encode"
    """Pixels to a file."""
    UPLOAD = "upload"
    """Writing to the store."""


class Measures:
    """Seconds by part and the length of the queue; filled and read from any thread."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Begin with nothing spent."""
        self._clock = clock
        self._lock = Lock()
        self._seconds = dict.fromkeys(Part, 0.0)
        self._queued: Callable[[], int] = int

    @contextmanager
    def timed(self, part: Part) -> Iterator[None]:
        """Add the time that the block takes, also where it fails."""
        began = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._seconds[part] += self._clock() - began

    @property
    def seconds(self) -> dict[Part, float]:
        """Seconds spent so far, by part."""
        with self._lock:
            return dict(self._seconds)

    @property
    def queued(self) -> int:
        """Samples that the model is done with and that are not in the store yet."""
        return self._queued()

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Ask `length` for the queue's length from now on."""
        self._queued = length
