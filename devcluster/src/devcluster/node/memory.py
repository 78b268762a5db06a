"""Enforces a container's memory limit by polling: a container above it is killed, as the kernel does for a kubelet.

Between two polls a container can exceed its limit, and a process that runs for a shorter time is not seen. The resident
memory of the process and of all its descendants counts; pages that they share are counted for each.
"""

import asyncio
import os
from pathlib import Path

_LOOK_S = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


async def outgrows(pid: int, limit: int) -> None:
    """Return when the process and its descendants use more than `limit` bytes."""
    while resident_bytes(pid) <= limit:  # noqa: ASYNC110 - the kernel sends no event
        await asyncio.sleep(_LOOK_S)


def resident_bytes(pid: int) -> int:
    """Return the resident memory of the process and its descendants; 0 when it has ended."""
    root = Path("/proc", str(pid))
    try:
        held = int((root / "statm").read_text().split()[1]) * _PAGE
        below = [child for task in (root / "task").iterdir() for child in (task / "children").read_text().split()]
    except (OSError, IndexError):
        return 0
    return held + sum(resident_bytes(int(child)) for child in below)
