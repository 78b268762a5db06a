"""Starts a child process and waits for its end, without threads.

Python 3.11's asyncio waits for children in threads, and a process with threads should not fork. A pidfd in the event
loop needs no thread.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from devcluster import kernel


class Process(Protocol):
    """A child process that can be waited for."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def wait(self) -> int:
        """Reap it and return its exit status; minus the signal's number if a signal ended it."""
        ...


@dataclass(frozen=True)
class _Adopted:
    """A process that this one did not start, and of which it became the parent."""

    pid: int

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Child:
    """A running or finished child process, which leads its own session."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        working_directory: Path,
        pass_fds: Sequence[int] = (),
    ) -> Self:
        """Start it with its output appended to `log`. Raises OSError when the program cannot be started."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=working_directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
                start_new_session=True,
                preexec_fn=kernel.die_with_parent(),
            )
        return cls(process)

    @classmethod
    def adopted(cls, pid: int) -> Self:
        """Watch a process whose parent ended, so that this process, a subreaper, became its parent."""
        return cls(_Adopted(pid))

    @property
    def pid(self) -> int:
        """Its process id, and that of its group and session."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._ended.done()

    async def wait(self) -> int:
        """Wait for its end and return its exit status; minus the signal's number if a signal ended it."""
        return await asyncio.shield(self._ended)

    def signal_group(self, signal_number: int) -> None:
        """Send a signal to it and to its descendants in its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal_number)

    async def kill(self) -> None:
        """End it and its group at once."""
        self.signal_group(signal.SIGKILL)
        await self.wait()

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        # Before it is reaped: afterwards the group's number could belong to other processes.
        self.signal_group(signal.SIGKILL)
        self._ended.set_result(self._process.wait())


def end_all_children(*, spare: frozenset[int] = frozenset()) -> None:
    """Kill and reap every child of this process except `spare`, and every orphan that becomes its child."""
    while doomed := [pid for pid in kernel.children() if pid not in spare]:
        for pid in doomed:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue
