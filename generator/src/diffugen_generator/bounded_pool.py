"""Work beside the caller, never more of it than a bound: what keeps a million samples in little memory.

`in_order` turns a stream of items into a stream of results, in the items' order, a window of them in the making.
`Lane` takes calls whose results nobody waits for, and holds its caller up while too many are under way. In both,
the first exception comes out at the caller, and what has not begun by then is dropped.
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
    """Yield `work(item)` for each item, in order, with up to `window` of them begun ahead of the caller."""
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
    """Calls beside the caller, in any order, up to twice as many as there are workers."""

    def __init__(self, workers: int) -> None:
        """Start with nothing under way."""
        self._pool = ThreadPoolExecutor(workers)
        self._bound = 2 * workers
        self._under_way: set[Future[None]] = set()

    def __enter__(self) -> Lane:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def put(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call `work` beside the caller; wait for room; raise what an earlier call raised."""
        if len(self._under_way) >= self._bound:
            done, self._under_way = wait(self._under_way, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
        self._under_way.add(self._pool.submit(work, *args, **kwargs))

    def finish(self) -> None:
        """Wait for all that is under way; raise what any of it raised."""
        for future in self._under_way:
            future.result()
        self._under_way.clear()
