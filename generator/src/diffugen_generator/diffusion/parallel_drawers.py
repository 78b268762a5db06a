"""Several batches in parallel on a CPU: for models so small that one batch cannot use all cores.

The threads of one operation wait for one another after each operation; for a small model this costs more time than the
threads save. Whole batches in parallel, each on one thread, do not wait. The networks are shared and only read, and
each thread has a drawer with its own scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from diffugen_generator.diffusion.drawing import Drawer, DrawingSettings, DrawRequest, SamplingObserver
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.model import DiffusionModel

S = TypeVar("S")
T = TypeVar("T")


class ParallelDrawers:
    """Drawers that share a model; together they do the work of one `Drawer`."""

    def __init__(self, model: DiffusionModel, texts: TextStates, threads: int = 1) -> None:
        """Draw with `model` in `threads` threads."""
        own = [model, *(model.with_own_sampler() for _ in range(1, threads))]
        self._drawers = [Drawer(each, texts) for each in own]
        self._texts = texts
        self._pool = ThreadPoolExecutor(threads, "draw") if threads > 1 else None

    def sample(
        self,
        requests: Sequence[DrawRequest],
        settings: DrawingSettings,
        *,
        batch: int | None = None,
        observer: SamplingObserver | None = None,
    ) -> list[torch.Tensor]:
        """Return the latents of `requests`, as `Drawer.sample`; with an observer, only one drawer is used."""
        first = self._drawers[0]
        if self._pool is None or observer is not None:
            return first.sample(requests, settings, batch=batch, observer=observer)
        self._texts.read(
            [settings.negative, *(request.prompt for request in requests)]
        )  # once, before several threads need it
        return self._shared(lambda drawer, some: drawer.sample(some, settings), requests)

    def decode(self, latents: Sequence[torch.Tensor]) -> list[NDArray[np.uint8]]:
        """Turn latents into images, as `Drawer.decode`."""
        return self._shared(lambda drawer, some: drawer.decode(some), latents)

    def _shared(self, work: Callable[[Drawer, Sequence[S]], list[T]], items: Sequence[S]) -> list[T]:
        """Run `work` with each drawer on its share of `items`, and return the results in the order of `items`."""
        if self._pool is None:
            return work(self._drawers[0], items)
        size = -(-len(items) // len(self._drawers))
        shares = [items[start : start + size] for start in range(0, len(items), size)]
        done = [self._pool.submit(work, drawer, some) for drawer, some in zip(self._drawers, shares, strict=False)]
        return [item for future in done for item in future.result()]
