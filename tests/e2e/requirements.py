"""What the end-to-end tests need of this machine: `python -m tests.e2e.requirements` says what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from devcluster.kubelet.requirements import missing_for_a_node

GIGABYTES = 20
"""Free space for the layers of the images, in buildah's store and once more on the node."""
_STORE = Path("/var/lib")
_CGROUPS = Path("/sys/fs/cgroup")
_OVERLAY = (
    "mount -t tmpfs none /mnt && mkdir /mnt/lower /mnt/upper /mnt/work /mnt/all && mount -t overlay overlay "
    "-o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /mnt/all"
)
_PROBES = {
    "mount an overlay": ("unshare", "--mount", "sh", "-c", _OVERLAY),
    "make a network bridge": ("unshare", "--net", "ip", "link", "add", "probe", "type", "bridge"),
    "use iptables": ("unshare", "--net", "iptables", "--table", "nat", "--list"),
}
"""What a kernel may lack or a container may forbid, even to root. Each probe ends with its own namespace."""


def missing() -> str:
    """Return one sentence about what is missing, and how to get it; empty if nothing is."""
    if sentence := missing_for_a_node():
        return sentence
    if absent := [program for program in ("buildah", "debootstrap") if shutil.which(program) is None]:
        return f"the images are built by programs that are missing: apt-get install {' '.join(absent)}"
    for what, command in _PROBES.items():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"a node must {what}, which fails here: {done.stderr.strip()}"
    if (refused := _refused_group()) is not None:
        return f"a node makes control groups, which fails here: {refused}"
    if (free := shutil.disk_usage(_STORE).free) < GIGABYTES * 10**9:
        return f"images and node need {GIGABYTES} GB of space in {_STORE}; {free / 1e9:.0f} GB are free"
    return ""


def _refused_group() -> OSError | None:
    tops = [top for top in (_CGROUPS / "memory", _CGROUPS / "pids", _CGROUPS) if top.is_dir()]
    group = tops[0] / f"diffugen-probe-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        return error
    finally:
        with suppress(OSError):
            group.rmdir()
    return None


if __name__ == "__main__":
    sys.exit(missing() or 0)
