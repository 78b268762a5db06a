"""The one thing of a node that the kernel does not take down with its processes: empty control groups."""

import os
from contextlib import suppress
from pathlib import Path

_HIERARCHIES = Path("/sys/fs/cgroup")


def cgroup_of(subnet: str) -> str:
    """The name of the group that all of a node's pods are in."""
    return f"devcluster-{subnet.replace('.', '-')}"


def remove_cgroups(subnet: str) -> None:
    """Remove the groups of a node whose processes are gone, in every hierarchy (one with cgroup v2, many with v1)."""
    name = cgroup_of(subnet)
    for top in (_HIERARCHIES / name, *_HIERARCHIES.glob(f"*/{name}")):
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
