"""Where networks run: the device that was asked for, or the best there is, and what to say where it fails."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Mapping

import torch

from diffugen_generator.failures import UnknownDevice

ENV_GIVEN = "NVIDIA_VISIBLE_DEVICES"
"""What the container was given, as NVIDIA's device plugin and container toolkit say it."""
_NONE_GIVEN = {"", "none", "void"}

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""
_KEPT, _LARGE = 1 << 30, 32 << 20
"""Bytes: that stay with the process when they are freed; from which a block is always given back (glibc's most)."""

log = logging.getLogger(__name__)


def open_device(name: str | None, environ: Mapping[str, str] = os.environ) -> torch.device:
    """Return the device called `name`; where absent the first GPU, or the CPU where there is none.

    On the CPU, memory that is freed is kept from then on. Raises `UnknownDevice` where there is no such device.
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
    """Let the process keep up to 1 GiB that it has freed, for its next tensors; without glibc, do nothing.

    By itself glibc gives blocks of some MB back to the system as soon as they are freed, and each operation of a
    network on the CPU gets its own anew, page by page: 314,000 page faults for 16 images of `builtin://shapes`, which
    was 30 % of the CPU time. With this there were 13, and the process was no larger.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_TRIM_THRESHOLD, _KEPT)
    mallopt(_MMAP_THRESHOLD, _LARGE)


def _best(environ: Mapping[str, str]) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    given = environ.get(ENV_GIVEN, "")
    if given not in _NONE_GIVEN:
        log.warning("%s is %s, but torch sees no GPU: drawing on the CPU; look at the node's driver", ENV_GIVEN, given)
    return torch.device("cpu")
