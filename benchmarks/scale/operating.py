"""The operator as a process: starts it, kills it, and measures it from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devcluster import kernel

_PAGE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)
_AS_IN_ITS_IMAGE = "import sys; sys.modules['kubernetes'] = None; from diffugen_operator.main import main; main()"
"""Starts the operator without Kubernetes' client, which kopf loads where it is installed, as here for the cluster."""
_TICKS = os.sysconf("SC_CLK_TCK")


class NotInTimeError(Exception):
    """An expected state was not reached in time."""


@dataclass(frozen=True)
class Page:
    """A page of metrics."""

    values: dict[tuple[str, str], float]

    def of(self, name: str, labels: str = "") -> float:
        """Return a sample's value; 0 if it was never counted. `labels` is in the format of the page: a="b"."""
        return self.values.get((name, labels), 0.0)

    def total(self, name: str) -> float:
        """Return the sum over all labels."""
        return sum(value for (found, _), value in self.values.items() if found == name)


class OperatorProcess:
    """One operator for one namespace."""

    def __init__(self, *, kubeconfig: Path, namespace: str, log: Path) -> None:
        self._command = [
            *(sys.executable, "-c", _AS_IN_ITS_IMAGE, f"--kubeconfig={kubeconfig}", f"--namespace={namespace}"),
            *("--http-host=127.0.0.1", "--log-format=json"),
        ]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def start(self, *, within: float = 60) -> float:
        """Start it; return the seconds until it had listed all objects (/readyz)."""
        began = time.monotonic()
        before = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if not name.startswith(("DIFFUGEN_", "KUBE"))},
                preexec_fn=kernel.die_with_parent(),
            )

        def listens() -> bool:
            said = re.search(r"Probes and metrics at [^ ]*:(\d+)\.", self._log.read_bytes()[before:].decode())
            if said is not None:
                self._url = f"http://127.0.0.1:{said[1]}"
            return said is not None

        wait_until(listens, "the operator listens", within=within)
        wait_until(self._ready, "the operator is ready", within=within)
        return time.monotonic() - began

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def page(self) -> Page:
        """Return its metrics."""
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return Page({(name, labels): float(value) for name, labels, value in _PAGE.findall(text)})

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that it has used, of user and system."""
        assert self._process is not None
        return cpu_seconds(self._process.pid)

    def peak_megabytes(self) -> float:
        """Return its peak resident memory, in MB of 10^6 bytes."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6  # type: ignore[index]

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used, of user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def lower_priority(pid: int, nice: int) -> None:
    """Lower the priority of a process: of all of its threads, and of those that they start."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)


def wait_until(seen: Callable[[], bool], what: str, *, within: float, every: float = 0.1) -> float:
    """Wait until `seen` returns true; return the seconds of the wait. Raises NotInTimeError."""
    began = time.monotonic()
    while not seen():
        if time.monotonic() - began > within:
            raise NotInTimeError(f"not within {within:.0f} s: {what}")
        time.sleep(every)
    return time.monotonic() - began
