"""Measures a stage's time: seconds by part, and the length of the queue after the model.

The parts overlap: the model draws and reads images in one thread, several other threads do the rest. So the seconds
can add up to more than the elapsed time. The bottleneck is the part whose seconds grow as fast as the elapsed time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from threading import Lock


class Part(StrEnum):
    """A part of the work on a sample."""

    LOAD = "load"
    """Finding the model and loading it."""
    DRAW = "draw"
    LOOK = "look"
    """Running the model on an image for evidence."""
    DECIDE = "decide"
    """Computing instances from evidence."""
    ENCODE = "encode"
    """Encoding pixels as a file."""
    UPLOAD = "upload"
    """Writing to the store."""


class Measures:
    """Seconds by part and the length of the queue; filled and read from any thread."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start with zero seconds."""
        self._clock = clock
        self._lock = Lock()
        self._seconds = dict.fromkeys(Part, 0.0)
        self._queued: Callable[[], int] = int

    @contextmanager
    def timed(self, part: Part) -> Iterator[None]:
        """Add the duration of the block, also if it raises."""
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
        """Samples that the model has finished and that are not stored yet."""
        return self._queued()

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Set the function that returns the queue's length."""
        self._queued = length
