"""Removes a node's empty control groups: the kernel does not remove them when the processes end."""

import os
from contextlib import suppress
from pathlib import Path

_HIERARCHIES = Path("/sys/fs/cgroup")


def cgroup_of(subnet: str) -> str:
    """Return the name of the group that contains all of a node's pods."""
    return f"devcluster-{subnet.replace('.', '-')}"


def remove_cgroups(subnet: str) -> None:
    """Remove the groups of a node whose processes have ended, in every hierarchy (one with cgroup v2, many with v1)."""
    name = cgroup_of(subnet)
    for top in (_HIERARCHIES / name, *_HIERARCHIES.glob(f"*/{name}")):
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
