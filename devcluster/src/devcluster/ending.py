"""Ends a cluster from another process, and defines the error of all operations on clusters."""

import fcntl
import os
import signal
import time
from contextlib import suppress

from devcluster import control
from devcluster.layout import StateDirectory

_DOWN_WITHIN_S = 120.0  # a node's images are many files


class ClusterError(RuntimeError):
    """The cluster could not be started or ended, or a command on it failed; the message has the reason."""


def take_down(directory: StateDirectory) -> None:
    """Ask the supervisor to end the cluster, or kill it if it does not answer; wait until nothing is left."""
    try:
        lock = directory.lock.open("r")
    except FileNotFoundError:
        return
    with lock:
        try:
            control.ask(directory.control, "down", timeout_s=5)
        except (OSError, control.ControlError):
            _kill_supervisor(directory)
        if _released(lock.fileno()):
            return
        _kill_supervisor(directory)
        if not _released(lock.fileno()):
            raise ClusterError(f"the cluster in {directory.path} does not end")


def _kill_supervisor(directory: StateDirectory) -> None:
    # The lock is held, so the process id does not belong to another process.
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(directory.read_description().supervisor_pid, signal.SIGKILL)


def _released(lock: int) -> bool:
    end = time.monotonic() + _DOWN_WITHIN_S
    while time.monotonic() < end:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False
