"""The device on which networks run: the requested one, or the best one available; and errors if it fails."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from diffugen_generator.failures import UnknownDevice

ENV_GIVEN = "NVIDIA_VISIBLE_DEVICES"
"""The variable with the container's GPUs, as NVIDIA's device plugin and container toolkit set it."""
_NONE_GIVEN = {"", "none", "void"}

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""
_KEPT, _LARGE = 1 << 30, 32 << 20
"""In bytes: how much freed memory the process keeps; and the size from which a block is always returned to the system
(the largest value that glibc allows)."""

log = logging.getLogger(__name__)


def open_device(name: str | None, environ: Mapping[str, str] = os.environ) -> torch.device:
    """Return the device `name`; if absent, the first GPU, or the CPU if there is no GPU.

    On the CPU, the process keeps freed memory from then on. Raises `UnknownDevice` if the device does not exist.
    """
    device = _best(environ) if name is None else _named(name)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def _named(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in {"cpu", "cuda"}:
        raise UnknownDevice(f"--device: there is no device {name!r}; give cuda, cuda:1 or cpu, or leave it out.")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UnknownDevice(f"--device: there is no {name!r} here, torch sees {count} GPUs; give cpu, or leave it out.")
    return device


def keep_freed_memory() -> None:
    """Keep up to 1 GiB of freed memory in the process for its next tensors; without glibc, do nothing.

    By default, glibc returns blocks of some MB to the system as soon as they are freed. Then each operation of a
    network on the CPU gets new memory, page by page: 314,000 page faults for 16 images of `builtin://shapes`, which was
    30 % of the CPU time. With this setting there were 13 page faults, and the process was not larger.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_TRIM_THRESHOLD, _KEPT)
    mallopt(_MMAP_THRESHOLD, _LARGE)


def compute_reproducibly() -> None:
    """Let this process compute the same bits each time: one thread, and deterministic algorithms where torch has them.

    Where torch has none, it warns and names the operation.
    """
    torch.set_num_threads(1)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as cuBLAS requires it; it is read at the first use
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


@contextmanager
def threads_in_operations(number: int | None) -> Iterator[None]:
    """Let this thread's operations use so many threads in the block; None changes nothing."""
    former = torch.get_num_threads()
    torch.set_num_threads(number or former)
    try:
        yield
    finally:
        torch.set_num_threads(former)


def _best(environ: Mapping[str, str]) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    given = environ.get(ENV_GIVEN, "")
    if given not in _NONE_GIVEN:
        log.warning("%s is %s, but torch sees no GPU: drawing on the CPU; look at the node's driver", ENV_GIVEN, given)
    return torch.device("cpu")
