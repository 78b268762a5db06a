"""The programs that a real node needs on this machine, and their locations."""

import os
import shutil
from pathlib import Path

CNI_PLUGINS = Path("/usr/lib/cni")
"""The folder of Debian's package containernetworking-plugins."""
_PROGRAMS = {
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
}
"""The Debian package of each program."""


def missing_for_a_node() -> str:
    """Return one sentence about what is missing for a node on this machine; empty if nothing is."""
    if os.geteuid() != 0:
        return "a node of kind kubelet needs root"
    packages = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if not (CNI_PLUGINS / "bridge").exists():
        packages.add("containernetworking-plugins")
    if packages:
        return f"a node of kind kubelet needs more of this machine: apt-get install {' '.join(sorted(packages))}"
    return ""
