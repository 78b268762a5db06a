"""What this machine must have for a real node, and where."""

import os
import shutil
from pathlib import Path

CNI_PLUGINS = Path("/usr/lib/cni")
"""Where Debian's containernetworking-plugins lie."""
_PROGRAMS = {
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
}
"""Program to Debian package."""


def missing_for_a_node() -> str:
    """One sentence on what keeps this machine from running a node; empty where nothing does."""
    if os.geteuid() != 0:
        return "a node of kind kubelet needs root"
    packages = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if not (CNI_PLUGINS / "bridge").exists():
        packages.add("containernetworking-plugins")
    if packages:
        return f"a node of kind kubelet needs more of this machine: apt-get install {' '.join(sorted(packages))}"
    return ""
