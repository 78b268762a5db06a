"""The node's main loop: registers the node, then starts a worker for every pod that is bound to it.

The agent lists the pods, then watches from there. When the watch ends for any reason, it lists again. A pod is
identified by its uid and gets exactly one worker, however late or often its events come.
"""

import asyncio
import logging
import os
from collections.abc import Coroutine

from devcluster.kubeapi import UNREACHABLE, ApiError, JsonObject, KubeApi
from devcluster.layout import StateDirectory
from devcluster.node.addresses import AddressPool
from devcluster.node.events import EventRecorder
from devcluster.node.fork_server import ForkServer
from devcluster.node.images import PRELOADED, ImageStore
from devcluster.node.logserver import LogServer
from devcluster.node.pods import HOST_ADDRESS, NodeContext, PodWorker, delete_for_good
from devcluster.node.registration import Registration

log = logging.getLogger(__name__)

_RELIST_AFTER_S = 0.5
_FINAL = frozenset({"Succeeded", "Failed"})


class Agent:
    """One node of a cluster."""

    def __init__(self, directory: StateDirectory, *, name: str) -> None:
        self._directory = directory
        self._name = name
        self._spec = directory.read_spec()
        self._workers: dict[str, PodWorker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished: set[str] = set()

    async def run(self) -> None:
        """Run until killed."""
        certificates = self._directory.certificates
        logs = LogServer(self._directory.pods, self._is_running)
        port = await logs.start(certificates / "apiserver.crt", certificates / "apiserver.key")
        async with KubeApi.from_kubeconfig(self._directory.kubeconfig_of("node")) as api:
            node = self._context(api)
            registration = Registration(
                api,
                name=self._name,
                address=HOST_ADDRESS,
                kubelet_port=port,
                gpus=self._spec.gpus,
                grace_s=self._spec.node_monitor_grace_s,
            )
            await registration.register()
            self._directory.node_ready(self._name).write_text(self._name)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(registration.keep_alive())
                tasks.create_task(self._watch_pods(api, node))

    def _context(self, api: KubeApi) -> NodeContext:
        host, port = api.address
        environment = {
            "PATH": f"{self._spec.node_path}:{os.environ.get('PATH', os.defpath)}",
            "LANG": "C.UTF-8",
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": str(port),
            # No CPU limit is enforced, so this variable limits the threads of numerical libraries: each simulated
            # GPU gets an equal part of the cores. With more threads than cores, threads would wait for each other.
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // max(1, self._spec.gpus))),
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        return NodeContext(
            api=api,
            images=ImageStore(self._spec.images, self._directory.image_root),
            addresses=AddressPool(),
            events=EventRecorder(api, self._name),
            pods_directory=self._directory.pods,
            base_environment=environment,
            fork_servers=[
                ForkServer(each, environment, self._directory.log_of(f"fork-server-{each.name}")) for each in PRELOADED
            ],
        )

    async def _watch_pods(self, api: KubeApi, node: NodeContext) -> None:
        mine = f"spec.nodeName={self._name}"
        while True:
            try:
                listing = await api.get("/api/v1/pods", fieldSelector=mine)
                self._compare(listing["items"], node)
                version = listing["metadata"]["resourceVersion"]
                async for kind, pod in api.watch("/api/v1/pods", fieldSelector=mine, resourceVersion=version):
                    if kind == "ERROR":
                        break
                    if kind == "DELETED":
                        self._forget(pod["metadata"]["uid"])
                    elif kind != "BOOKMARK":
                        self._observe(pod, node)
            except (ApiError, *UNREACHABLE) as error:
                log.warning("watching pods: %r", error)
                await asyncio.sleep(_RELIST_AFTER_S)

    def _compare(self, pods: list[JsonObject], node: NodeContext) -> None:
        """Update, start and end workers by a whole list of pods."""
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid in [uid for uid in (*self._workers, *self._finished) if uid not in present]:
            self._forget(uid)
        for pod in pods:
            self._observe(pod, node)

    def _observe(self, pod: JsonObject, node: NodeContext) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._workers:
            self._workers[uid].update(pod)
            return
        over = uid in self._finished or pod.get("status", {}).get("phase") in _FINAL
        dying = "deletionTimestamp" in pod["metadata"]
        if not over:
            worker = self._workers[uid] = PodWorker(pod, node)
            worker.update(pod)
            self._spawn(self._work(worker))
        elif dying and pod["metadata"].get("deletionGracePeriodSeconds"):
            self._spawn(delete_for_good(node.api, pod))

    async def _work(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:
            # The error of one pod does not end the agent, as with a kubelet.
            log.exception("pod %s", worker.uid)
        finally:
            del self._workers[worker.uid]
            self._finished.add(worker.uid)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget(self, uid: str) -> None:
        if uid in self._workers:
            self._workers[uid].vanish()
        self._finished.discard(uid)

    def _is_running(self, namespace: str, name: str) -> bool:
        return any(
            worker.pod["metadata"]["namespace"] == namespace and worker.pod["metadata"]["name"] == name
            for worker in self._workers.values()
        )
