"""Work beside the model: a pool of threads that encode, decide and upload, with a bound on what waits.

The model draws the next batch meanwhile. When the store is slower than the model, `submit` blocks, so memory
stays bounded; when a task fails, the next `submit` or `finish` raises its error, and nothing is lost
silently.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore, Lock
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import cv2

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 8
"""Enough for a store some ten milliseconds away; encoding and deciding release the interpreter's lock."""


class Uploads:
    """A bounded pool.

    Leaving its `with` waits for what was submitted, also when an exception leaves it, and raises the first failure.
    After a failure of a task, what has not begun is dropped.
    """

    def __init__(self, *, waiting: int, threads: int = THREADS) -> None:
        """Run up to `threads` tasks at once; `submit` blocks while `waiting` are under way."""
        # Tasks work side by side: threads of OpenCV's own would only get in their way.
        self._pool = ThreadPoolExecutor(threads, "upload", initializer=cv2.setNumThreads, initargs=(1,))
        self._slots = BoundedSemaphore(waiting)
        self._lock = Lock()
        self._queued = 0
        self._failure: BaseException | None = None

    @property
    def queued(self) -> int:
        """Tasks that were submitted and are not done."""
        return self._queued

    def submit(self, task: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run a task soon; raise the failure of an earlier one."""
        self._slots.acquire()
        try:
            self._raise()
            future = self._pool.submit(task, *args, **kwargs)
        except BaseException:
            self._slots.release()
            raise
        with self._lock:
            self._queued += 1
        future.add_done_callback(self._done)

    def ask(self, task: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a task whose result is wanted; its failure is the result's."""
        return self._pool.submit(task, *args, **kwargs)

    def finish(self) -> None:
        """Wait for everything that was submitted; raise the first failure."""
        self._pool.shutdown(wait=True)
        self._raise()

    def _done(self, future: Future[object]) -> None:
        failure = None if future.cancelled() else future.exception()
        with self._lock:
            self._failure = self._failure or failure
            self._queued -= 1
        self._slots.release()

    def _raise(self) -> None:
        with self._lock:
            if self._failure is not None:
                raise self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            return
        # What was drawn is worth keeping whatever ends the work, unless the store itself is what fails.
        self._pool.shutdown(wait=True, cancel_futures=self._failure is not None)
