"""The operator as a process of its own that can be killed."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from devcluster import kernel

IMAGE = "diffugen/generator:dev"


class OperatorProcess:
    """An operator for one namespace or for all; a fork of a process that has imported its libraries."""

    def __init__(
        self, *, kubeconfig: Path, namespace: str, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = [
            str(Path(sys.executable).with_name("diffugen-operator")),
            f"--kubeconfig={kubeconfig}",
            f"--namespace={namespace}" if namespace else "--all-namespaces",
        ]
        self.log = log
        self.environment = environment or {}
        self._pid: int | None = None

    def start(self) -> None:
        environment = {
            **os.environ,
            "DIFFUGEN_GENERATOR_IMAGE": IMAGE,
            "DIFFUGEN_LIGHT_IMAGE": IMAGE,
            "DIFFUGEN_SCRAPE_INTERVAL": "1",
            "DIFFUGEN_PROGRESS_INTERVAL": "2",
            **self.environment,
        }
        self.log.touch()
        self._pid = _fork_server().start(self._command, environment, self.log)

    @property
    def pid(self) -> int:
        assert self._pid is not None
        return self._pid

    def exit_code(self) -> int:
        """Wait for its end; returns its exit code, or minus the number of the signal that ended it."""
        pidfd = os.pidfd_open(self.pid)
        ended, _, _ = select.select([pidfd], [], [], 30)
        os.close(pidfd)
        assert ended, "it has not ended within 30 s"
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._pid = None
        return code

    def end(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """Send the signal and wait; do nothing if it does not run."""
        if self._pid is not None:
            os.kill(self._pid, with_signal)
            self.exit_code()

    def kill(self) -> None:
        self.end(signal.SIGKILL)


class _ForkServer:
    """A process that has imported the operator; see `devcluster.node.fork_server_main`."""

    def __init__(self) -> None:
        kernel.become_subreaper()  # a fork becomes this process' child
        ours, theirs = socket.socketpair()
        module = "devcluster.node.fork_server_main"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), "diffugen_operator.main"],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                preexec_fn=kernel.die_with_parent(),
            )
        self._socket = ours
        self._lines = ours.makefile("rw")

    def start(self, command: list[str], environment: Mapping[str, str], log: Path) -> int:
        """Run a Python program with its arguments; returns the process id."""
        request = {"command": command, "environment": dict(environment), "directory": str(Path.cwd()), "log": str(log)}
        self._lines.write(json.dumps(request) + "\n")
        self._lines.flush()
        return int(self._lines.readline())

    def stop(self) -> None:
        with suppress(OSError):
            self._lines.close()
        self._socket.close()
        self._process.wait(timeout=30)


@cache
def _fork_server() -> _ForkServer:
    server = _ForkServer()
    atexit.register(server.stop)
    return server
