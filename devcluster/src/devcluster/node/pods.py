"""The life of one pod on the node.

A `PodWorker` runs from the time when the pod is bound to this node until its final phase is written. Its containers'
processes run until they end, or until the pod's deletion or its deadline ends them. Every step reports to the status
writer; no step waits for the writes.
"""

import asyncio
import logging
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from devcluster.kubeapi import UNREACHABLE, ApiError, JsonObject, KubeApi
from devcluster.node.addresses import AddressPool
from devcluster.node.containers import Container, Launch, timestamp
from devcluster.node.environment import container_environment, expand
from devcluster.node.events import EventRecorder
from devcluster.node.fork_server import ForkServer, start_container
from devcluster.node.images import ImageStore, pull_policy
from devcluster.node.paths import PathMap
from devcluster.node.sources import MissingError, Sources
from devcluster.node.status import Conditions, StatusWriter, Verdict, phase_of
from devcluster.node.volumes import make_volumes, mounts_of

log = logging.getLogger(__name__)

HOST_ADDRESS = "127.0.0.1"
_RETRY_S = 1.0
"""Time until a missing object is looked up again; a kubelet waits longer, which would make tests slow."""
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 60.0
_DEFAULT_MESSAGE_PATH = "/dev/termination-log"


@dataclass(frozen=True, kw_only=True)
class NodeContext:
    """The objects that all pods of a node share."""

    api: KubeApi
    images: ImageStore
    addresses: AddressPool
    events: EventRecorder
    pods_directory: Path
    base_environment: Mapping[str, str]
    """The environment variables of every container."""
    fork_servers: Sequence[ForkServer]


class _NotRunnableError(RuntimeError):
    """The container cannot be started now; `reason` is the kubelet's reason in its waiting state."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PodWorker:
    """One pod, bound to this node."""

    def __init__(self, pod: JsonObject, node: NodeContext) -> None:
        meta = pod["metadata"]
        self.pod = pod
        self.uid: str = meta["uid"]
        self._node = node
        self._sources = Sources(node.api, meta["namespace"])
        self._writer = StatusWriter(node.api, pod, self._status)
        self._directory = node.pods_directory / f"{meta['namespace']}_{meta['name']}_{self.uid}"
        inits = pod["spec"].get("initContainers") or []
        first_reason = "PodInitializing" if inits else "ContainerCreating"
        self._inits = [Container(spec, self._directory, waiting_reason=first_reason) for spec in inits]
        self._containers = [
            Container(spec, self._directory, waiting_reason=first_reason) for spec in pod["spec"]["containers"]
        ]
        self._conditions = Conditions()
        self._initialized = not inits
        self._verdict: Verdict | None = None
        self._address = ""
        self._started_at = pod.get("status", {}).get("startTime") or timestamp()
        self._began = time.monotonic()
        self._deletion = asyncio.Event()
        self._vanished = asyncio.Event()

    def update(self, pod: JsonObject) -> None:
        """Receive the pod's current object from the API server."""
        self.pod = pod
        if self._conditions.differ(pod):  # the control plane marks the pods of a node that was silent for too long
            self._writer.changed()
        if "deletionTimestamp" in pod["metadata"]:
            self._deletion.set()

    def vanish(self) -> None:
        """Handle that the pod was removed from the API server before this node finished it."""
        self._vanished.set()
        self._deletion.set()

    def logs_of(self, container: str) -> Path:
        """Return the log file of a container."""
        return self._directory / f"{container}.log"

    async def run(self) -> None:
        """Run the pod until its phase is final."""
        # There is a log already: the container ran under an earlier agent of this node.
        lost = any(container.log.exists() for container in self._containers)
        self._address = self.pod.get("status", {}).get("podIP") or self._node.addresses.take()
        writing = asyncio.create_task(self._writer.run())
        try:
            if lost and self.pod["spec"].get("restartPolicy") == "Never":
                for container in self._containers:
                    container.lose()
            else:
                self._writer.changed()
                await self._live()
            self._verdict = self._verdict or Verdict(phase_of(self._containers, ending=True))
            self._writer.changed()
            await self._writer.flush()
            if self._deletion.is_set():
                await delete_for_good(self._node.api, self.pod)
        finally:
            writing.cancel()
            await self._end_processes(0)
            self._node.addresses.give_back(self._address)
            self._sweep()

    async def _live(self) -> None:
        work = asyncio.create_task(self._run_containers())
        deletion = asyncio.create_task(self._deletion.wait())
        try:
            deadline = self.pod["spec"].get("activeDeadlineSeconds")
            await asyncio.wait({work, deletion}, timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return await work
        finally:
            work.cancel()
            deletion.cancel()
        await asyncio.gather(work, return_exceptions=True)
        grace = self.pod["spec"].get("terminationGracePeriodSeconds", 30)
        if self._deletion.is_set():
            grace = self.pod["metadata"].get("deletionGracePeriodSeconds", grace)
        else:
            message = "Pod was active on the node longer than the specified deadline"
            self._verdict = Verdict("Failed", "DeadlineExceeded", message)
        await self._end_processes(grace)
        return None

    async def _run_containers(self) -> None:
        volumes = await self._mount()
        for container in self._inits:
            if await self._run(container, volumes) != 0:
                self._verdict = Verdict("Failed")
                return
        self._initialized = True
        await asyncio.gather(*(self._run(container, volumes) for container in self._containers))

    async def _mount(self) -> dict[str, Path]:
        reported = ""
        while True:
            try:
                volumes = self._directory / "volumes"
                return await make_volumes(self.pod_with_addresses(), volumes, self._sources, self._node.images)
            except (MissingError, ApiError) as error:
                if str(error) != reported:
                    reported = str(error)
                    await self._node.events.warn(self.pod, "FailedMount", reported)
            except UNREACHABLE as error:
                log.warning("%s: %r", self._directory.name, error)
            await asyncio.sleep(_RETRY_S)

    async def _run(self, container: Container, volumes: Mapping[str, Path]) -> int:
        """Run a container, restarted by the restart policy; return its last exit code."""
        backoff = _FIRST_BACKOFF_S
        while True:
            await self._start(container, volumes)
            code = await container.ended()
            self._writer.changed()
            if not self._restarts(container, code):
                return code
            await self._writer.flush()  # its end is written before the state CrashLoopBackOff
            container.wait_because(
                "CrashLoopBackOff", f"back-off {backoff:.0f}s restarting failed container={container.name}"
            )
            self._writer.changed()
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, _LONGEST_BACKOFF_S)
            container.restarts += 1

    def _restarts(self, container: Container, code: int) -> bool:
        policy = self.pod["spec"].get("restartPolicy", "Always")
        if policy == "Always" and container not in self._inits:
            return True
        return policy != "Never" and code != 0

    async def _start(self, container: Container, volumes: Mapping[str, Path]) -> None:
        while True:
            try:
                await self._launch(container, await self._prepare(container, volumes))
            except _NotRunnableError as error:
                if container.wait_because(error.reason, str(error)):
                    self._writer.changed()
                    await self._node.events.warn(self.pod, "Failed", f"Error: {error}")
            except UNREACHABLE as error:
                log.warning("%s: %r", self._directory.name, error)
            else:
                self._writer.changed()
                return
            await asyncio.sleep(_RETRY_S)

    async def _launch(self, container: Container, launch: Launch) -> None:
        await container.start(launch, partial(start_container, self._node.fork_servers))

    async def _prepare(self, container: Container, volumes: Mapping[str, Path]) -> Launch:
        spec = container.spec
        self._require_image(spec)
        self._require_image_volumes(spec, volumes)
        for directory in (container.directory / "home", container.directory / "tmp"):
            directory.mkdir(parents=True, exist_ok=True)
        mounts = mounts_of(spec, volumes)
        paths = PathMap(
            {
                **mounts,
                _DEFAULT_MESSAGE_PATH: container.termination_log,
                spec.get("terminationMessagePath", _DEFAULT_MESSAGE_PATH): container.termination_log,
            }
        )
        PathMap(mounts).link_nested()
        base = {
            **self._node.base_environment,
            "HOSTNAME": self.pod["metadata"]["name"],
            "HOME": str(container.directory / "home"),
            "TMPDIR": str(mounts.get("/tmp", container.directory / "tmp")),
            "DIFFUGEN_TERMINATION_LOG": str(container.termination_log),
        }
        try:
            environment = await container_environment(
                spec, self.pod_with_addresses(), sources=self._sources, paths=paths, base=base
            )
        except (MissingError, ApiError) as error:
            raise _NotRunnableError("CreateContainerConfigError", str(error)) from None
        words = (spec.get("command") or self._node.images.entrypoint(spec["image"])) + (spec.get("args") or [])
        if not words:
            raise _NotRunnableError("CreateContainerError", "no command specified")
        return Launch(
            command=[paths.rewrite(expand(word, environment)) for word in words],
            environment=environment,
            working_directory=self._working_directory(container, paths),
        )

    def _require_image(self, spec: JsonObject) -> None:
        image = spec["image"]
        if self._node.images.has(image):
            return
        if pull_policy(spec) == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            raise _NotRunnableError("ErrImageNeverPull", message)
        raise _NotRunnableError("ImagePullBackOff", f'Back-off pulling image "{image}"')

    def _require_image_volumes(self, spec: JsonObject, volumes: Mapping[str, Path]) -> None:
        images = {each["name"]: each["image"] for each in self.pod["spec"].get("volumes") or [] if "image" in each}
        for name in (mount["name"] for mount in spec.get("volumeMounts") or []):
            if name in images and not volumes[name].is_dir():
                reference = images[name]["reference"]
                raise _NotRunnableError("ImagePullBackOff", f'Back-off pulling image "{reference}"')

    def _working_directory(self, container: Container, paths: PathMap) -> Path:
        inside: str = container.spec.get("workingDir", "")
        if not inside:
            return container.directory
        outside = Path(paths.rewrite(inside))
        if str(outside) == inside:  # not on a volume
            outside = container.directory / "root" / inside.lstrip("/")
        outside.mkdir(parents=True, exist_ok=True)
        return outside

    def pod_with_addresses(self) -> JsonObject:
        """Return the pod with the status fields that its containers can refer to."""
        status = {**self.pod.get("status", {}), **self._addresses()}
        return {**self.pod, "status": status}

    def _addresses(self) -> JsonObject:
        return {
            "hostIP": HOST_ADDRESS,
            "hostIPs": [{"ip": HOST_ADDRESS}],
            "podIP": self._address,
            "podIPs": [{"ip": self._address}],
        }

    async def _end_processes(self, grace_s: float) -> None:
        """Send SIGTERM, wait for the grace period, send SIGKILL."""
        alive = [container for container in self._inits + self._containers if container.running]
        if not alive:
            return
        ends = [asyncio.create_task(container.ended()) for container in alive]
        for container in alive:
            # Only to the first process, as a container runtime does; its child processes end after it.
            if container.child is not None and container.child.running and grace_s > 0:
                os.kill(container.child.pid, signal.SIGTERM)
        vanished = asyncio.create_task(self._vanished.wait())
        if grace_s > 0:
            all_ended = asyncio.ensure_future(asyncio.wait(ends))
            await asyncio.wait([all_ended, vanished], timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
            all_ended.cancel()
        vanished.cancel()
        for container in alive:
            if container.child is not None and container.child.running:
                container.child.signal_group(signal.SIGKILL)
        await asyncio.gather(*ends)

    def _status(self) -> JsonObject:
        phase = self._verdict.phase if self._verdict else phase_of(self._containers, ending=False)
        over = phase in {"Succeeded", "Failed"}
        ready = not over and all(container.running for container in self._containers)
        status: JsonObject = {
            "phase": phase,
            "startTime": self._started_at,
            **self._addresses(),
            "conditions": self._conditions.update(
                PodReadyToStartContainers=not over,
                Initialized=self._initialized,
                ContainersReady=ready,
                Ready=ready,
            ),
            "containerStatuses": [container.status() for container in self._containers],
        }
        if self._inits:
            status["initContainerStatuses"] = [container.status() for container in self._inits]
        if self._verdict and self._verdict.reason:
            status |= {"reason": self._verdict.reason, "message": self._verdict.message}
        return status

    def _sweep(self) -> None:
        """Delete everything except the logs, which people read after a failure."""
        if not self._directory.exists():
            return
        for entry in self._directory.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)


async def delete_for_good(api: KubeApi, pod: JsonObject) -> None:
    """Delete the pod's object: the last step, when nothing of the pod is left on the node."""
    meta = pod["metadata"]
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
    options = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
    while True:
        try:
            await api.delete(path, options)
        except ApiError as error:
            if error.status in {404, 409}:
                return
            log.warning("%s: %s", path, error)
        except UNREACHABLE as error:
            log.warning("%s: %r", path, error)
        else:
            return
        await asyncio.sleep(_RETRY_S)
