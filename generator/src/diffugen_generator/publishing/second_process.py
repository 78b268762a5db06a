"""A second process for a part of the publishing, as the threads of one Python process run one at a time.

`python -m diffugen_generator.publishing.second_process FD` reads pickled calls from the socket FD: a function of a
module and its arguments. It answers each call with the result. It ends when the other end of the socket is closed.

It is not one of `concurrent.futures`, because a process of that kind imports the program that was started, with all
that it needs, and so takes as long to start as it saves.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import ParamSpec, TypeVar, cast

_MANY = 2_000
"""From so many samples on, a second process saves more than its start takes."""

P = ParamSpec("P")
R = TypeVar("R")


class SecondProcess:
    """Calls functions one after another in a second process, which starts with the first call.

    A function is called in this process instead if the second process cannot start, if it has ended, or if the function
    raised an error there. So results and errors are the same as without it.
    """

    def __init__(self) -> None:
        """Start no process yet."""
        self._thread = ThreadPoolExecutor(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The process, once it is started."""
        return self._process

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call a function of a module; the arguments and the result must be picklable."""
        return self._thread.submit(self._call, function, args, kwargs)

    def close(self) -> None:
        """End the process; calls that have not begun are dropped."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.wait()

    def _call(self, function: Callable[..., R], args: tuple[object, ...], kwargs: dict[str, object]) -> R:
        with suppress(EOFError, OSError):
            if self._connection is None:
                self._start()
            connection = cast("Connection", self._connection)
            connection.send((function, args, kwargs))
            succeeded, result = connection.recv()
            if succeeded:
                return cast("R", result)
        return function(*args, **kwargs)

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            fd = theirs.fileno()
            command = [sys.executable, "-m", __name__, str(fd)]
            self._process = subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL)


def second_process_for(samples: int, stack: ExitStack) -> SecondProcess | None:
    """Return a second process for the publishing of so many samples, which `stack` ends; None for a few."""
    if samples < _MANY:
        return None
    second = SecondProcess()
    stack.callback(second.close)
    return second


def _main(fd: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the other end of the socket closes then
    with Connection(fd) as calls, suppress(EOFError, OSError):
        while True:
            function, args, kwargs = calls.recv()
            try:
                answer = True, function(*args, **kwargs)
            except Exception:  # noqa: BLE001 - it is raised by the call in the first process
                answer = False, None
            calls.send(answer)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
