"""Ports for processes that must be told theirs before they start.

They come from below the range that the kernel hands out by itself, so that no outgoing connection takes one
between our look and the server's bind, nor while a server is down on purpose. Two clusters may still draw the
same number in the same moment: the loser's server says "address already in use", and its supervisor starts
over with other ports.
"""

import random
import socket
from pathlib import Path

_LOWEST = 20000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """`count` distinct loopback ports that nothing listens on now."""
    highest = int(_EPHEMERAL_RANGE.read_text().split()[0]) - 1
    usual = highest >= _LOWEST + 1000  # else anything unprivileged must do
    candidates = range(_LOWEST, highest) if usual else range(1024, 65536)
    chosen: list[int] = []
    for port in random.sample(candidates, k=min(len(candidates), 500)):
        if _is_free(port):
            chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise OSError(f"no {count} free ports found in {candidates}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
