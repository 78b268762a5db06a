"""Starts containers as forks of a process that has imported their libraries.

A worker of a stage imports torch, diffusers and transformers, which costs seconds of CPU in every pod; the other
workers and the operator need one second. On this kind of node a cluster's pods are short, and the imports were most of
their cost. So the first container of a program starts a fork server (`fork_server_main`), and each is a fork of it. All
else is as in a new process: its own session, environment, working directory and log.

A container is started in the usual way if its program is another one, if its environment has a variable that libraries
read when they are imported, or if the fork server has ended.
"""

import asyncio
import json
import logging
import shutil
import signal
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from devcluster.children import Child
from devcluster.kubeapi import JsonObject
from devcluster.node.containers import Launch, start_process

LOG = logging.getLogger(__name__)

_READ_ON_IMPORT = (
    "CUDA",
    "DIFFUSERS",
    "HF_",
    "HUGGINGFACE",
    "KMP_",
    "LD_",
    "MKL",
    "OMP",
    "OPENBLAS",
    "PYTHON",
    "PYTORCH",
    "TORCH",
    "TRANSFORMERS",
    "XDG_",
    "YOLO",
)
"""How the names of such variables begin."""


@dataclass(frozen=True)
class Preloaded:
    """A program whose libraries are imported beforehand."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    """How a container's command may begin: the name of one console script of this environment, and arguments."""
    modules: tuple[str, ...]


class ForkServer:
    """The fork server of one program; it starts with the first container that it fits."""

    def __init__(
        self,
        program: Preloaded,
        base_environment: Mapping[str, str],
        log: Path,
        *,
        scripts: Path = Path(sys.executable).parent,
    ) -> None:
        """Serve the program of the folder `scripts`; the server's own output goes to `log`."""
        self._program = program
        self._script = scripts / program.commands[0][0]
        self._environment = dict(base_environment)
        self._log = log
        self._lock = asyncio.Lock()
        self._server: Child | None = None
        self._answers: asyncio.StreamReader
        self._requests: asyncio.StreamWriter | None = None

    def fits(self, launch: Launch) -> bool:
        """Return whether a fork of this server is the same as a new process."""
        return (
            any(tuple(launch.command[: len(words)]) == words for words in self._program.commands)
            and shutil.which(self._script.name, path=launch.environment.get("PATH", "")) == str(self._script)
            and _read_on_import(launch.environment) == _read_on_import(self._environment)
        )

    async def start(self, launch: Launch, log: Path) -> Child:
        """Start the container's process. Raises OSError if the server cannot be started or has ended."""
        request = {
            "command": [str(self._script), *launch.command[1:]],
            "environment": dict(launch.environment),
            "directory": str(launch.working_directory),
            "log": str(log),
        }
        # A request that is under way is never cancelled: its answer would be read as that of the next one.
        forked = asyncio.create_task(self._fork(request))
        try:
            return await asyncio.shield(forked)
        except asyncio.CancelledError:
            forked.add_done_callback(_kill)
            raise

    async def _fork(self, request: JsonObject) -> Child:
        async with self._lock:
            if self._server is None or self._requests is None or not self._server.running:
                self._server, self._answers, self._requests = await self._start_server()
            self._requests.write(json.dumps(request).encode() + b"\n")
            answer = await self._answers.readline()
        if not answer:
            raise OSError(None, f"the fork server has ended; see {self._log}")
        return Child.adopted(int(answer))

    async def _start_server(self) -> tuple[Child, asyncio.StreamReader, asyncio.StreamWriter]:
        if self._requests is not None:  # of the former server, which has ended
            self._requests.close()
            self._requests = None
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                server = Child.start(
                    [
                        sys.executable,
                        "-m",
                        "devcluster.node.fork_server_main",
                        str(theirs.fileno()),
                        ",".join(self._program.modules),
                    ],
                    environment=self._environment,
                    log=self._log,
                    working_directory=self._log.parent,
                    pass_fds=[theirs.fileno()],
                )
            answers, requests = await asyncio.open_unix_connection(sock=ours)
        except OSError:
            ours.close()
            raise
        return server, answers, requests


async def start_container(servers: Iterable[ForkServer], launch: Launch, log: Path) -> Child:
    """Start a container's process: as a fork if a server fits and answers, else in the usual way.

    If the server has ended, as where a library cannot be imported, the new process says why in its own log. Raises
    OSError if the program cannot be started.
    """
    for server in filter(lambda each: each.fits(launch), servers):
        try:
            return await server.start(launch, log)
        except OSError as error:
            LOG.warning("%s: started without the fork server: %s", log, error)
    return await start_process(launch, log)


def _kill(forked: asyncio.Task[Child]) -> None:
    if not forked.cancelled() and forked.exception() is None:
        forked.result().signal_group(signal.SIGKILL)


def _read_on_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_ON_IMPORT)}
