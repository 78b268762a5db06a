"""How fast work goes, and how long it will still take: for a line in a log or on a terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_WINDOW_SECONDS = 60.0
"""The rate is that of the last minute: a model that had to be loaded first does not spoil it for ever."""
_LOG_SECONDS = 5.0

Clock = Callable[[], float]


class Meter:
    """Measures work of `total` parts; parts that were there from the beginning (the first update) are no speed."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        """Begin without anything done."""
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        self.done = 0
        self.total = 0

    def update(self, done: int, total: int) -> None:
        """Note how many parts are done now."""
        now = self._clock()
        self.done, self.total = done, total
        self._seen.append((now, done))
        # one observation older than the window stays, so that the rate covers all of it
        while len(self._seen) > 2 and now - self._seen[1][0] >= _WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        """Parts a second; 0 while unknown."""
        if len(self._seen) < 2:
            return 0.0
        (began, first), (now, last) = self._seen[0], self._seen[-1]
        return (last - first) / (now - began) if now > began else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all is done at this rate; None while unknown."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    def line(self) -> str:
        """Return where the work stands: `120/200 (60 %), 3.2/s, 25 s left`."""
        percent = 100 * self.done // self.total if self.total else 100
        parts = [f"{self.done:,}/{self.total:,} ({percent} %)"]
        if self.rate > 0:
            parts.append(speed(self.rate))
        if self.seconds_left and self.done < self.total:
            parts.append(f"{duration(self.seconds_left)} left")
        return ", ".join(parts)


class ProgressLines:
    """Says where work stands, at most every few seconds, and once more when it is done."""

    def __init__(self, say: Callable[[str], None], what: str, clock: Clock = time.monotonic) -> None:
        """Say lines that begin with `what`."""
        self._say = say
        self._what = what
        self._clock = clock
        self._meter = Meter(clock)
        self._due = clock() + _LOG_SECONDS
        self._said = -1

    def update(self, done: int, total: int) -> None:
        """Note progress; say it where it is due."""
        self._meter.update(done, total)
        finished = done >= total
        if self._clock() < self._due and not (finished and self._said != done):
            return
        self._due = self._clock() + _LOG_SECONDS
        self._said = done
        self._say(f"{self._what}: {self._meter.line()}")


def speed(rate: float) -> str:
    """Return a rate as people say it: `892/s`, `3.2/s`, and below one `6.5 s each`."""
    if rate < 1:
        return f"{1 / rate:,.1f} s each"
    return f"{rate:,.1f}/s" if rate < 100 else f"{rate:,.0f}/s"


def duration(seconds: float) -> str:
    """Return seconds as people say them: `25 s`, `4 min 10 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
