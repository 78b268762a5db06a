"""Runs tasks in threads, with a limit on unfinished tasks, so that a million samples need little memory.

`in_order` turns a stream of items into a stream of results, in the items' order. It starts a limited number of items
ahead of the caller. `BoundedPool` runs tasks whose results are not used; its caller waits while too many are
unfinished. The first failure of a task is raised at the caller, so that no failure is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from statistics import median
from threading import Condition
from time import perf_counter
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

_TRIED = 9
"""Items that are worked on before threads are started."""
_SHORT = 0.0005
"""In seconds: shorter work is not handed over to threads."""
_LONG = 0.02
"""In seconds: after two items in a row that take longer, the others are handed over at once."""

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


def in_order(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int,
    window: int,
    batch: int = 1,
    short: Callable[[Iterator[T]], Iterator[R]] | None = None,
) -> Iterator[R]:
    """Yield `work(item)` for each item, in order; up to `window` of them are started ahead of the caller.

    A thread takes `batch` items at a time: with short work, handing over an item takes as long as the work itself. If
    the first items take less than half a millisecond, as the small files of a local folder, `short` yields the other
    results. Without it, all are worked on by the caller: in threads, such work takes longer.
    """
    pending = iter(items)
    seconds = []
    for item in islice(pending, _TRIED):
        began = perf_counter()
        result = work(item)
        seconds.append(perf_counter() - began)
        yield result
        if len(seconds) > 1 and min(seconds[-2:]) > _LONG:
            break
    if seconds and median(seconds) < _SHORT:
        yield from map(work, pending) if short is None else short(pending)
        return

    def batches(most: int) -> Iterator[list[T]]:
        for _ in range(most):
            if not (found := list(islice(pending, batch))):
                return
            yield found

    def results(of: list[T]) -> list[R]:
        return [work(item) for item in of]

    with ThreadPoolExecutor(workers) as pool:
        try:
            ahead = deque(pool.submit(results, each) for each in batches(max(1, window // batch)))
            while ahead:
                yield from ahead.popleft().result()
                ahead.extend(pool.submit(results, each) for each in batches(1))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class BoundedPool:
    """Threads that run tasks in any order.

    The end of its `with` block waits for the submitted tasks and raises the first failure. After the failure of a task,
    tasks that have not begun are dropped.
    """

    def __init__(
        self,
        threads: int,
        *,
        bound: int | None = None,
        complete_on_error: bool = False,
        initializer: Callable[[], object] | None = None,
    ) -> None:
        """Run up to `threads` tasks at once; `submit` blocks while `bound` tasks (twice as many) are unfinished.

        With `complete_on_error`, all submitted tasks are run even if another error ends the `with` block. Without it,
        tasks that have not begun are dropped then. Each thread first calls `initializer`.
        """
        self._pool = ThreadPoolExecutor(threads, initializer=initializer)
        self._bound = 2 * threads if bound is None else bound
        self._complete_on_error = complete_on_error
        self._changed = Condition()
        self._queued = 0
        self._failure: BaseException | None = None

    @property
    def queued(self) -> int:
        """Number of tasks that were submitted and are not finished."""
        return self._queued

    def submit(self, task: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Submit a task, and wait while too many are unfinished; raise the failure of an earlier task."""
        with self._changed:
            self._changed.wait_for(lambda: self._queued < self._bound)
            self._raise()
            self._queued += 1
        try:
            future = self._pool.submit(task, *args, **kwargs)
        except BaseException:
            self._count_down()
            raise
        future.add_done_callback(self._done)

    def ask(self, task: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a task and return its future, which has the result or the failure; it does not count for the bound."""
        return self._pool.submit(task, *args, **kwargs)

    def finish(self) -> None:
        """Wait for all submitted tasks; raise the first failure."""
        with self._changed:
            self._changed.wait_for(lambda: self._queued == 0 or self._failure is not None)
            self._raise()

    def _done(self, future: Future[object]) -> None:
        self._count_down(None if future.cancelled() else future.exception())

    def _count_down(self, failure: BaseException | None = None) -> None:
        with self._changed:
            self._failure = self._failure or failure
            self._queued -= 1
            self._changed.notify_all()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self.finish()
            finally:
                self._pool.shutdown(wait=True, cancel_futures=True)
            return
        complete = self._complete_on_error and self._failure is None
        self._pool.shutdown(wait=True, cancel_futures=not complete)
