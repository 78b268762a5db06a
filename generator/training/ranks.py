"""Data-parallel training on a few CPU cores: one process of one thread per core, gradients averaged by gloo.

On two cores, two such processes are faster than one with two threads: with small convolutions the second thread is
idle.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_on_ranks(ranks: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run `work(rank, *arguments)` in `ranks` processes that can `average` with each other."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an orderly exit ends the daemon processes too
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = str(Path(folder) / "rendezvous")
        mp.spawn(_enter, args=(ranks, rendezvous, work, arguments), nprocs=ranks, daemon=True)


def _enter(rank: int, ranks: int, rendezvous: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=ranks)
    work(rank, *arguments)
    dist.destroy_process_group()


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over all ranks, in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
