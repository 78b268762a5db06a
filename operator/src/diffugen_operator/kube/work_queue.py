"""The queue of datasets to reconcile.

Events add names; workers take them. A name is in the queue at most once, however many events there were. A name that is
being worked on is not given to a second worker: it is queued again when the first is done. Names can be added with a
delay (progress, back-off); an earlier time replaces a later one.

There are two lines. Changes of a spec go to the urgent one, which is served first, so that a new dataset's first Job
does not wait for the progress of a thousand others. After several urgent names the other line gets a turn.

`Schedule` has all the rules and never waits; `WorkQueue` adds the waiting.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

from diffugen_operator.kube.backoff import backoff, jittered

URGENT_TURNS = 8
"""Urgent keys in a row while others wait."""

Clock = Callable[[], float]
"""Seconds of a monotonic clock: time.monotonic, or a test's own."""


class Key(NamedTuple):
    """A dataset's full name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Schedule:
    """When each key is to be worked on."""

    def __init__(self, *, backoff_base: float, backoff_limit: float, jitter: Callable[[], float]) -> None:
        self._base, self._limit, self._jitter = backoff_base, backoff_limit, jitter
        self._ready: OrderedDict[Key, float] = OrderedDict()  # and since when
        self._urgent: OrderedDict[Key, float] = OrderedDict()
        self._urgent_turns = 0
        self._later: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._working: dict[Key, float] = {}
        self._again: dict[Key, bool] = {}  # and whether it is urgent
        self._failures: dict[Key, int] = {}
        self._not_before: dict[Key, float] = {}

    def add(self, key: Key, now: float, *, urgent: bool = False) -> None:
        """Queue the key; a key that is queued already keeps its place and may become urgent."""
        if self._not_before.get(key, now) > now:
            self.add_later(key, now)
            return
        self._later.pop(key, None)
        if key in self._working:
            self._again[key] = urgent or self._again.get(key, False)
        elif urgent:
            self._urgent.setdefault(key, self._ready.pop(key, now))
        elif key not in self._urgent:
            self._ready.setdefault(key, now)

    def add_later(self, key: Key, when: float) -> None:
        """Queue the key at `when`, unless it is due before."""
        when = max(when, self._not_before.get(key, when))
        queued = key in self._ready or key in self._urgent or key in self._again
        if queued or self._later.get(key, when + 1) <= when:
            return
        self._later[key] = when
        heapq.heappush(self._heap, (when, key))

    def take(self, now: float) -> Key | None:
        """Take the key that has waited longest, urgent ones first; None if none is due."""
        self._promote(now)
        if not self._ready and not self._urgent:
            return None
        urgent = bool(self._urgent) and not (self._ready and self._urgent_turns >= URGENT_TURNS)
        self._urgent_turns = self._urgent_turns + 1 if urgent else 0
        key, _ = (self._urgent if urgent else self._ready).popitem(last=False)
        self._working[key] = now
        return key

    def done(self, key: Key, now: float) -> None:
        """Return the key after a success."""
        self._failures.pop(key, None)
        self._not_before.pop(key, None)
        self._give_back(key, now)

    def failed(self, key: Key, now: float, *, at_least: float = 0, firm: bool = False) -> float:
        """Return the key after a failure; it is queued again after a pause, which is returned.

        An event may shorten the pause; if it is `firm`, not below `at_least`.
        """
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = jittered(backoff(failures, base=self._base, limit=self._limit), self._jitter())
        pause = max(pause, at_least)
        # An event that arrived meanwhile may be caused by ourselves; it does not shorten the pause.
        self._again.pop(key, None)
        self._working.pop(key, None)
        self._later.pop(key, None)
        if firm:
            self._not_before[key] = now + at_least
        self.add_later(key, now + pause)
        return pause

    def next_due(self) -> float | None:
        """Return when the next delayed key is due, or None if none waits."""
        while self._heap and self._later.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def depth(self) -> int:
        """Return how many keys are queued."""
        return len(self._ready) + len(self._urgent)

    def oldest_age(self, now: float) -> float:
        """Return how long the first key has waited."""
        first = [next(iter(line.values())) for line in (self._ready, self._urgent) if line]
        return now - min(first) if first else 0.0

    def longest_work(self, now: float) -> float:
        """Return how long the longest running work has taken."""
        return now - min(self._working.values()) if self._working else 0.0

    def _give_back(self, key: Key, now: float) -> None:
        self._working.pop(key, None)
        if (urgent := self._again.pop(key, None)) is not None:
            self.add(key, now, urgent=urgent)

    def _promote(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            _, key = heapq.heappop(self._heap)
            self.add(key, now)


class WorkQueue:
    """A schedule on which workers can wait. A key that is due wakes one of them."""

    def __init__(
        self,
        *,
        clock: Clock,
        backoff_base: float,
        backoff_limit: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = math.inf
        self._closed = False
        self.schedule = Schedule(backoff_base=backoff_base, backoff_limit=backoff_limit, jitter=jitter)

    def add(self, key: Key, *, urgent: bool = False) -> None:
        """Queue the key."""
        self.schedule.add(key, self._clock(), urgent=urgent)
        self._changed()

    def add_after(self, key: Key, delay: float) -> None:
        """Queue the key after `delay` seconds; 0 queues it at once."""
        if delay > 0:
            self.schedule.add_later(key, self._clock() + delay)
        else:
            self.schedule.add(key, self._clock())
        self._changed()

    def close(self) -> None:
        """Stop giving out keys."""
        self._closed = True
        while self._waiting:
            self._wake()

    async def take(self) -> Key | None:
        """Wait for a key and take it; None once the queue is closed."""
        while not self._closed:
            if (key := self.schedule.take(self._clock())) is not None:
                self._changed()  # further keys are for other workers
                return key
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            self._changed()
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                else:  # It was woken for a key that it does not take.
                    self._changed()
                raise
        return None

    def done(self, key: Key) -> None:
        """Return the key after a success."""
        self.schedule.done(key, self._clock())
        self._changed()

    def failed(self, key: Key, *, at_least: float = 0, firm: bool = False) -> float:
        """Return the key after a failure; returns the pause, of which `at_least` is kept if it is `firm`."""
        pause = self.schedule.failed(key, self._clock(), at_least=at_least, firm=firm)
        self._changed()
        return pause

    def _changed(self) -> None:
        """Wake a waiting worker if a key is due, else at the time when the next one is."""
        if not self._waiting:
            return
        if self.schedule.depth():
            self._wake()
        elif (due := self.schedule.next_due()) is not None and due < self._timer_due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due = due
            self._timer = self._waiting[0].get_loop().call_later(max(0.0, due - self._clock()), self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer, self._timer_due = None, math.inf
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            if not (waiter := self._waiting.popleft()).done():  # else its worker was cancelled
                waiter.set_result(None)
                return
