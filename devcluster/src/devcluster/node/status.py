"""Computes a pod's status from the states of its containers, and writes it to the API server."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from devcluster.kubeapi import UNREACHABLE, ApiError, JsonObject, KubeApi
from devcluster.node.containers import Container, timestamp

log = logging.getLogger(__name__)

_RETRY_S = 0.5


@dataclass
class Verdict:
    """The phase, reason and message of a pod where they do not follow from its containers' states."""

    phase: str
    reason: str = ""
    message: str = ""


class Conditions:
    """The node's conditions of a pod, with the time of each one's last change."""

    def __init__(self) -> None:
        self._known: dict[str, JsonObject] = {}

    def update(self, **holds: bool) -> list[JsonObject]:
        """Update the conditions and return them."""
        for name, value in holds.items():
            status = "True" if value else "False"
            if self._known.get(name, {}).get("status") != status:
                self._known[name] = {"type": name, "status": status, "lastTransitionTime": timestamp()}
        return list(self._known.values())

    def differ(self, pod: JsonObject) -> bool:
        """Return whether another client has changed the conditions since the last write."""
        there = {entry["type"]: entry["status"] for entry in pod.get("status", {}).get("conditions") or ()}
        return any(there.get(name, entry["status"]) != entry["status"] for name, entry in self._known.items())


def phase_of(containers: Sequence[Container], *, ending: bool) -> str:
    """Return Pending, Running, or the phase by the exit codes; `ending`: no more containers will be started."""
    if all(container.exit_code is not None for container in containers):
        return "Failed" if any(container.exit_code for container in containers) else "Succeeded"
    if ending:
        return "Failed"
    return "Running" if any(container.has_run for container in containers) else "Pending"


class StatusWriter:
    """Writes a pod's status when it has changed; changes during a write go into the next write."""

    def __init__(self, api: KubeApi, pod: JsonObject, current: Callable[[], JsonObject]) -> None:
        meta = pod["metadata"]
        self._api = api
        self._path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        self._uid = meta["uid"]
        self._current = current
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.pod_is_gone = False

    def changed(self) -> None:
        """Note that the status has changed."""
        self._wanted.set()
        self._idle.clear()

    async def flush(self) -> None:
        """Wait until all changes are written, or the pod is deleted."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write changes until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self._write()
            if not self._wanted.is_set():
                self._idle.set()

    async def _write(self) -> None:
        while not self.pod_is_gone:
            # The uid is a precondition: a new pod of the same name must not get this status.
            body = {"metadata": {"uid": self._uid}, "status": self._current()}
            try:
                await self._api.patch(self._path, body)
            except ApiError as error:
                if error.status in {404, 409}:
                    self.pod_is_gone = True
                    return
                log.warning("%s: %s", self._path, error)
            except UNREACHABLE as error:
                log.warning("%s: %r", self._path, error)
            else:
                return
            await asyncio.sleep(_RETRY_S)
