"""A pod's status, put together from the states of its containers; and the writer that brings it to the API
server."""

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
    """What is said of the pod as a whole, when its containers' states do not say it."""

    phase: str
    reason: str = ""
    message: str = ""


class Conditions:
    """The node's conditions of a pod, with the time of each one's last change."""

    def __init__(self) -> None:
        self._known: dict[str, JsonObject] = {}

    def update(self, **holds: bool) -> list[JsonObject]:
        """The conditions as they are now."""
        for name, value in holds.items():
            status = "True" if value else "False"
            if self._known.get(name, {}).get("status") != status:
                self._known[name] = {"type": name, "status": status, "lastTransitionTime": timestamp()}
        return list(self._known.values())

    def differ(self, pod: JsonObject) -> bool:
        """Whether somebody else has said otherwise of the pod than was written last."""
        there = {entry["type"]: entry["status"] for entry in pod.get("status", {}).get("conditions") or ()}
        return any(there.get(name, entry["status"]) != entry["status"] for name, entry in self._known.items())


def phase_of(containers: Sequence[Container], *, ending: bool) -> str:
    """Pending, Running, then what the exit codes say; `ending`: no more containers will be started."""
    if all(container.exit_code is not None for container in containers):
        return "Failed" if any(container.exit_code for container in containers) else "Succeeded"
    if ending:
        return "Failed"
    return "Running" if any(container.has_run for container in containers) else "Pending"


class StatusWriter:
    """Writes a pod's status whenever it has changed; what changes during a write goes out in the next."""

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
        """There is news."""
        self._wanted.set()
        self._idle.clear()

    async def flush(self) -> None:
        """Wait until the API server knows it all, or the pod is gone."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self._write()
            if not self._wanted.is_set():
                self._idle.set()

    async def _write(self) -> None:
        while not self.pod_is_gone:
            # The uid is a precondition: a new pod of the same name is none of our business.
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
