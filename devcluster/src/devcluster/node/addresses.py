"""Gives each pod its own address.

All of 127.0.0.0/8 is loopback on Linux and needs no set-up. Each agent draws a block of 1,024 addresses at
random, so that the pods of two clusters on one machine have different addresses.
"""

import ipaddress
import random
from itertools import cycle

_PREFIX_LENGTH = 22


class AddressPool:
    """The addresses of one node's pods."""

    def __init__(self) -> None:
        # Not 127.0.x.y and 127.1.x.y, which people use by hand.
        start = (127 << 24) | (random.randrange(2, 255) << 16) | (random.randrange(0, 256, 4) << 8)
        self.block = ipaddress.IPv4Network((start, _PREFIX_LENGTH))
        self._next = cycle(self.block.hosts())
        self._taken: set[ipaddress.IPv4Address] = set()

    def take(self) -> str:
        """Return the address that has been free for the longest time."""
        if len(self._taken) == self.block.num_addresses - 2:
            raise RuntimeError(f"all addresses of {self.block} are taken")
        address = next(candidate for candidate in self._next if candidate not in self._taken)
        self._taken.add(address)
        return str(address)

    def give_back(self, address: str) -> None:
        """Make the address of a deleted pod free again."""
        self._taken.discard(ipaddress.IPv4Address(address))
