"""How many images at once: the requested number, and half of it each time the memory is too small.

If the memory is too small for one batch, it is too small for the next one, and each failed try costs time. So the
smaller batch is kept while the model stays loaded, separately for each kind of work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

S = TypeVar("S")
T = TypeVar("T")

GPU_BATCH = 16
"""Images at once on a GPU; 512 px in bf16 take some 1 GB each."""
CPU_BATCH = 4

log = logging.getLogger(__name__)


class AdaptiveBatch:
    """Runs one kind of work in batches that fit into memory."""

    def __init__(self, what: str, *, padded_to: int | None = None) -> None:
        """Create it for the work `what`, a name for the log; on a GPU, batches are `padded_to` one size."""
        self._what = what
        self._most: int | None = None
        self.padded_to = padded_to
        """The size to which short batches are padded; None if padding only costs time."""

    def each(self, work: Callable[[Sequence[S]], list[T]], items: Sequence[S]) -> list[T]:
        """Run `work` on all `items` at once, or in the largest batches that are known to fit into memory.

        Raises `torch.OutOfMemoryError` if a single item does not fit.
        """
        done: list[T] = []
        while len(done) < len(items):
            some = items[len(done) :][: self._most]
            try:
                done += work(some)
                continue
            except torch.OutOfMemoryError:
                tried = max(len(some), self.padded_to or 0)
                if tried == 1:
                    raise
            self._halve(tried)  # not inside `except`: the error's traceback keeps the tensors in memory
        return done

    def _halve(self, tried: int) -> None:
        torch.cuda.empty_cache()
        self._most = (tried + 1) // 2
        if self.padded_to is not None:
            self.padded_to = self._most
        log.warning("memory does not reach to %s %d images at once; %d from now on", self._what, tried, self._most)
