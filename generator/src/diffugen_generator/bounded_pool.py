"""Thread pools with a bound on the work in flight, so that a million samples need little memory.

`in_order` maps a function over a stream, in order, with a bounded number of calls ahead of the caller.
`Lane` runs calls without results and blocks its caller while too many are in flight. Both raise the first exception
in the caller and drop calls that have not started.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import ParamSpec, TypeVar

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


def in_order(work: Callable[[T], R], items: Iterable[T], *, workers: int, window: int) -> Iterator[R]:
    """Yield `work(item)` for each item, in order; up to `window` calls start ahead of the caller."""
    pending = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        try:
            ahead = deque(pool.submit(work, item) for item in islice(pending, window))
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(pool.submit(work, item) for item in islice(pending, 1))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class Lane:
    """Runs calls in threads, in any order, with at most twice as many in flight as there are workers."""

    def __init__(self, workers: int) -> None:
        """Start `workers` threads."""
        self._pool = ThreadPoolExecutor(workers)
        self._bound = 2 * workers
        self._in_flight: set[Future[None]] = set()

    def __enter__(self) -> Lane:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def put(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Submit a call of `work`; block while the pool is full; raise the exception of an earlier call."""
        if len(self._in_flight) >= self._bound:
            done, self._in_flight = wait(self._in_flight, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
        self._in_flight.add(self._pool.submit(work, *args, **kwargs))

    def finish(self) -> None:
        """Wait for all calls; raise the exception of any of them."""
        for future in self._in_flight:
            future.result()
        self._in_flight.clear()
