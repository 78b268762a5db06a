"""The rate of work and the time left, for lines in a log or on a terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_WINDOW_SECONDS = 60.0
"""The rate covers the last minute, so that the time to load a model stops counting after a while."""
_LOG_SECONDS = 5.0

Clock = Callable[[], float]


class Meter:
    """Measures the progress of work in parts; parts done at the first update do not count for the rate."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        """Start with nothing done."""
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        self.done = 0
        self.total = 0

    def update(self, done: int, total: int) -> None:
        """Record how many parts are done now."""
        now = self._clock()
        self.done, self.total = done, total
        self._seen.append((now, done))
        # one observation older than the window stays, so that the rate covers all of it
        while len(self._seen) > 2 and now - self._seen[1][0] >= _WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        """Parts per second; 0 while unknown."""
        if len(self._seen) < 2:
            return 0.0
        (began, first), (now, last) = self._seen[0], self._seen[-1]
        return (last - first) / (now - began) if now > began else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all is done at this rate; None while unknown."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    def line(self) -> str:
        """Return the progress: `120/200 (60 %), 3.2/s, 25 s left`."""
        percent = 100 * self.done // self.total if self.total else 100
        parts = [f"{self.done:,}/{self.total:,} ({percent} %)"]
        if self.rate > 0:
            parts.append(speed(self.rate))
        if self.seconds_left and self.done < self.total:
            parts.append(f"{duration(self.seconds_left)} left")
        return ", ".join(parts)


class ProgressLines:
    """Writes lines of progress, at most one every few seconds, and one at the end."""

    def __init__(self, write: Callable[[str], None], what: str, clock: Clock = time.monotonic) -> None:
        """Write lines that begin with `what`."""
        self._write = write
        self._what = what
        self._clock = clock
        self._meter = Meter(clock)
        self._due = clock() + _LOG_SECONDS
        self._written = -1

    def update(self, done: int, total: int) -> None:
        """Record progress; write a line if one is due."""
        self._meter.update(done, total)
        finished = done >= total
        if self._clock() < self._due and not (finished and self._written != done):
            return
        self._due = self._clock() + _LOG_SECONDS
        self._written = done
        self._write(f"{self._what}: {self._meter.line()}")


def speed(rate: float) -> str:
    """Format a rate: `892/s`, `3.2/s`, and below one `6.5 s each`."""
    if rate < 1:
        return f"{1 / rate:,.1f} s each"
    return f"{rate:,.1f}/s" if rate < 100 else f"{rate:,.0f}/s"


def duration(seconds: float) -> str:
    """Format seconds: `25 s`, `4 min 10 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
