"""A container's memory limit, kept by looking: who takes more is killed, as the kernel would for a kubelet.

Looking is not counting at every page, so a container may pass its limit for a moment, and what lives for less than
that moment is not seen. Resident memory of the process and of all below it is what counts; pages that they share are
counted for each.
"""

import asyncio
import os
from pathlib import Path

_LOOK_S = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


async def outgrows(pid: int, limit: int) -> None:
    """Return once the process and those below it hold more than `limit` bytes."""
    while resident_bytes(pid) <= limit:  # noqa: ASYNC110 - the kernel sends no event
        await asyncio.sleep(_LOOK_S)


def resident_bytes(pid: int) -> int:
    """What the process and those below it hold; 0 once it is gone."""
    root = Path("/proc", str(pid))
    try:
        held = int((root / "statm").read_text().split()[1]) * _PAGE
        below = [child for task in (root / "task").iterdir() for child in (task / "children").read_text().split()]
    except (OSError, IndexError):
        return 0
    return held + sum(resident_bytes(int(child)) for child in below)
