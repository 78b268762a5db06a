"""How many images at once: what was asked for, until memory does not reach; from then on half of that.

Memory that is too small for one batch is too small for the next, and each try costs what was done of it. So what was
learnt holds as long as the model stays loaded, for each kind of work by itself.
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
    """Does one kind of work in batches that fit into memory."""

    def __init__(self, what: str, *, padded_to: int | None = None) -> None:
        """Say `what` it is, for the log; on a GPU, batches are `padded_to` one size."""
        self._what = what
        self._most: int | None = None
        self.padded_to = padded_to
        """The batch that short ones are padded to; None where padding is only work."""

    def each(self, work: Callable[[Sequence[S]], list[T]], items: Sequence[S]) -> list[T]:
        """Do `work` on all `items` at once, or on as many as memory is known to hold.

        Raises `torch.OutOfMemoryError` where it does not hold one.
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
            self._halve(tried)  # not while the error is handled: its traceback holds the tensors
        return done

    def _halve(self, tried: int) -> None:
        torch.cuda.empty_cache()
        self._most = (tried + 1) // 2
        if self.padded_to is not None:
            self.padded_to = self._most
        log.warning("memory does not reach to %s %d images at once; %d from now on", self._what, tried, self._most)
