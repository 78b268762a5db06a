"""One container: its process, and its state in the form of the API."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from devcluster.children import Child
from devcluster.kubeapi import JsonObject
from devcluster.node.memory import outgrows
from devcluster.node.sources import quantity

_MESSAGE_BYTES = 4096
"""The length at which the kubelet cuts a termination message."""
_LOG_LINES, _LOG_BYTES = 80, 2048
"""How much of the end of the log replaces the message with FallbackToLogsOnError."""


@dataclass(frozen=True)
class Launch:
    """The command, environment and paths of a container's process, resolved."""

    command: list[str]
    environment: Mapping[str, str]
    working_directory: Path


Start = Callable[[Launch, Path], Awaitable[Child]]
"""Starts the process of a launch, with its output in a file."""


async def start_process(launch: Launch, log: Path) -> Child:
    """Start a new process. Raises OSError if the program cannot be started."""
    return Child.start(
        launch.command, environment=launch.environment, log=log, working_directory=launch.working_directory
    )


class Container:
    """A container of one pod, with all of its restarts."""

    def __init__(self, spec: JsonObject, pod_directory: Path, *, waiting_reason: str) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.directory: Path = pod_directory / self.name
        self.log = pod_directory / f"{self.name}.log"
        self.restarts = 0
        self.child: Child | None = None
        self._state: JsonObject = {"waiting": {"reason": waiting_reason}}
        self._last_state: JsonObject = {}
        self._started_at = ""
        limit = (spec.get("resources", {}).get("limits") or {}).get("memory")
        self._memory_limit = None if limit is None else int(quantity(str(limit)))
        self._guard: asyncio.Task[None] | None = None
        self._outgrown = False

    @property
    def termination_log(self) -> Path:
        """The file that holds the termination message."""
        return self.directory / "termination-log"

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return "running" in self._state

    @property
    def exit_code(self) -> int | None:
        """The exit code of its last run; None before the first end."""
        terminated = self._state.get("terminated")
        return None if terminated is None else int(terminated["exitCode"])

    @property
    def has_run(self) -> bool:
        """Whether its process was ever started."""
        return bool(self._last_state) or "waiting" not in self._state

    def wait_because(self, reason: str, message: str) -> bool:
        """Record why it cannot run now; return whether the reason changed."""
        waiting = {"waiting": {"reason": reason, "message": message}}
        news = waiting != self._state
        if "terminated" in self._state:
            self._last_state = self._state
        self._state = waiting
        return news

    async def start(self, launch: Launch, start: Start) -> None:
        """Start its process; if that fails, the container has ended with the runtime's exit code for it."""
        self.termination_log.unlink(missing_ok=True)
        self._started_at = timestamp()
        try:
            self.child = await start(launch, self.log)
        except OSError as error:
            # containerd reports 128 and StartError for a program that does not exist.
            self._end(128, reason="StartError", message=f"failed to start {launch.command[0]!r}: {error.strerror}")
            return
        self._state = {"running": {"startedAt": self._started_at}}
        self._outgrown = False
        if self._memory_limit is not None:
            self._guard = asyncio.create_task(self._keep_within(self.child, self._memory_limit))

    async def _keep_within(self, child: Child, limit: int) -> None:
        await outgrows(child.pid, limit)
        self._outgrown = True
        child.signal_group(signal.SIGKILL)

    async def ended(self) -> int:
        """Wait for the end of its process and record it; return the exit code, 128 + n for signal n."""
        if self.child is not None and self.running:
            status = await self.child.wait()
            if self._guard is not None:
                self._guard.cancel()
            code, signal_number = (128 - status, -status) if status < 0 else (status, 0)
            self._end(
                code,
                reason="OOMKilled" if self._outgrown else "Error" if code else "Completed",
                message=self._message(code),
                signal_number=signal_number,
            )
        assert self.exit_code is not None
        return self.exit_code

    def lose(self) -> None:
        """Record that its process ended because the node agent ended."""
        self._started_at = timestamp()
        message = "The container could not be located when the pod was terminated"
        self._end(128 + signal.SIGKILL, reason="ContainerStatusUnknown", message=message)

    def status(self) -> JsonObject:
        """Return its part of the pod's status."""
        status: JsonObject = {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": self.spec["image"] if self.has_run else "",
            "ready": self.running,
            "started": self.running,
            "restartCount": self.restarts,
            "state": self._state,
            "lastState": self._last_state,
        }
        if self.child is not None:
            status["containerID"] = f"process://{self.child.pid}"
        return status

    def _end(self, code: int, *, reason: str, message: str, signal_number: int = 0) -> None:
        terminated: JsonObject = {
            "exitCode": code,
            "reason": reason,
            "startedAt": self._started_at,
            "finishedAt": timestamp(),
        }
        if message:
            terminated["message"] = message
        if signal_number:
            terminated["signal"] = signal_number
        if self.child is not None:
            terminated["containerID"] = f"process://{self.child.pid}"
        self._state = {"terminated": terminated}

    def _message(self, code: int) -> str:
        if self.termination_log.exists():
            with self.termination_log.open("rb") as file:
                text = file.read(_MESSAGE_BYTES)
            if text:
                return text.decode(errors="replace")
        if code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            tail = self.log.read_bytes()[-_LOG_BYTES:].splitlines(keepends=True)[-_LOG_LINES:]
            return b"".join(tail).decode(errors="replace")
        return ""


def timestamp() -> str:
    """Return the current time in the API's format."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
