"""The node's addresses, and the veth pair between its network namespace and the machine's."""

import ipaddress
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

_POOL = ipaddress.IPv4Network("10.192.0.0/11")
"""The range of the nodes' networks: private addresses that are rarely used."""


@dataclass(frozen=True)
class NodeNetwork:
    """One /24: the veth pair has its first addresses, the pods have its second half."""

    subnet: str
    """Its first three numbers, `10.200.7`."""

    @property
    def machine(self) -> str:
        """The address of the machine's end of the veth pair, where the API server listens."""
        return f"{self.subnet}.1"

    @property
    def node(self) -> str:
        """The address of the node's end of the veth pair, its InternalIP."""
        return f"{self.subnet}.2"

    @property
    def pods(self) -> str:
        """The pods' network."""
        return f"{self.subnet}.128/25"


def choose_network(name: str) -> NodeNetwork:
    """Return a network that overlaps no route of this machine; the same one for the same name, if it is free."""
    taken = [ipaddress.IPv4Network(text) for text in _routed()]
    subnets = list(_POOL.subnets(new_prefix=24))
    start = int(sha256(name.encode()).hexdigest(), 16) % len(subnets)
    for subnet in subnets[start:] + subnets[:start]:
        if not any(subnet.overlaps(other) for other in taken):
            return NodeNetwork(str(subnet.network_address).rpartition(".")[0])
    raise OSError(f"no free network in {_POOL}")


def _routed() -> Iterable[str]:
    listed = subprocess.run(["ip", "-json", "-4", "route", "show"], check=True, capture_output=True, text=True)
    return [route["dst"] for route in json.loads(listed.stdout or "[]") if route.get("dst", "default") != "default"]


def connect(network: NodeNetwork, machine_pid: int) -> None:
    """Connect this process' network namespace to that of `machine_pid`; to be called inside the node's namespace."""
    wire, end = "machine", f"dc{network.subnet.replace('.', '-')[3:]}"  # an interface's name has 15 characters at most
    _ip("link", "set", "lo", "up")
    _ip("link", "add", wire, "type", "veth", "peer", "name", end, "netns", str(machine_pid))
    _ip("addr", "add", f"{network.node}/30", "dev", wire)
    _ip("link", "set", wire, "up")
    _ip("route", "add", "default", "via", network.machine)
    outside = ["nsenter", f"--net=/proc/{machine_pid}/ns/net", "ip"]
    for command in (
        ["addr", "add", f"{network.machine}/30", "dev", end],
        ["link", "set", end, "up"],
        ["route", "add", network.pods, "via", network.node],
    ):
        subprocess.run([*outside, *command], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def hide_the_machines_state() -> None:
    """Hide the files that containerd, the kubelet and iptables have at fixed paths, in this mount namespace only."""
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    for folder in ("/run", "/var/lib", "/var/log"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder], check=True)
