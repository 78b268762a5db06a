"""Chooses ports for servers whose port must be known before they start.

The ports are below the range that the kernel gives to outgoing connections. So no outgoing connection takes a port
between the check and the server's bind, or while a test has stopped a server. Two clusters can still choose the same
number at the same time. Then one of the servers fails with "address already in use", and its supervisor starts again
with other ports.
"""

import random
import socket
from pathlib import Path

_LOWEST = 20000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Return `count` distinct loopback ports on which nothing listens now."""
    highest = int(_EPHEMERAL_RANGE.read_text().split()[0]) - 1
    usual = highest >= _LOWEST + 1000  # otherwise any unprivileged port
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
