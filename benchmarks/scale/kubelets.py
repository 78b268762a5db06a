"""Simulates kubelets: pods start, run for a short time and succeed, without any process.

It registers nodes with capacity for all pods, renews their Leases, and handles every pod that the scheduler binds to
one of them. A pod is Running for the duration of its step, with an address where it serves its progress as a worker
does. Then it is Succeeded, with the termination message that a worker of that step writes. Everything else is real: the
Job controller creates the pods and counts them when they finish, and the scheduler binds them.

Run in its own process: python -m benchmarks.scale.kubelets KUBECONFIG
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from devcluster.kubeapi import UNREACHABLE, ApiError, JsonObject, KubeApi
from diffugen_api.contract import (
    LABEL_MANAGED_BY,
    LABEL_REVISION,
    LABEL_STEP,
    MANAGED_BY,
    METRIC_SHARD_DONE,
    METRIC_SHARD_SAMPLES,
    METRICS_PORT,
    Outcome,
    Published,
    ShardCounts,
    StagePlan,
    Step,
)

NODES = 4
READY = "ready"
"""The line on standard output when the nodes exist."""
SAMPLES = 8
WORK_SECONDS = {Step.PLAN: 0.5, Step.STAGE: 2.0, Step.PUBLISH: 0.5}
ADDRESS = f"127.1.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
"""The address of all pods: a loopback address that no devcluster node gives to its pods."""

_CAPACITY = {"cpu": "4000", "memory": "16Ti", "ephemeral-storage": "16Ti", "pods": "5000", "nvidia.com/gpu": "5000"}
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_HEARTBEAT_SECONDS = 10.0
_RETRY_SECONDS = 0.5

log = logging.getLogger(__name__)


class Kubelets:
    """The kubelets of all nodes."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._taken: set[str] = set()
        self._playing: set[asyncio.Task[None]] = set()

    async def register(self) -> None:
        """Create the nodes."""
        for name in _names():
            await self._api.create("/api/v1/nodes", {"metadata": {"name": name}})
            conditions = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _now()}]
            status = {"capacity": _CAPACITY, "allocatable": _CAPACITY, "conditions": conditions}
            await self._api.patch(f"/api/v1/nodes/{name}/status", {"status": status})
            untainted = {"spec": {"taints": None}}
            await self._api.patch(f"/api/v1/nodes/{name}", untainted, content_type="application/merge-patch+json")
            lease = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": _now(micro=True)}
            await self._api.create(_LEASES, {"metadata": {"name": name}, "spec": lease})

    async def keep_alive(self) -> None:
        """Renew the nodes' Leases until cancelled."""
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            for name in _names():
                try:
                    renewed = {"spec": {"renewTime": _now(micro=True)}}
                    path = f"{_LEASES}/{name}"
                    await self._api.patch(path, renewed, content_type="application/merge-patch+json")
                except (ApiError, *UNREACHABLE) as error:
                    log.warning("heartbeat of %s: %r", name, error)

    async def take_pods(self) -> None:
        """Simulate every pod that is bound to one of the nodes, until cancelled."""
        selectors = {"labelSelector": f"{LABEL_MANAGED_BY}={MANAGED_BY}", "fieldSelector": "spec.nodeName!="}
        while True:
            try:
                async for kind, pod in self._api.watch("/api/v1/pods", **selectors):
                    self._take(kind, pod)
            except (ApiError, *UNREACHABLE) as error:
                log.warning("watch: %r", error)
            await asyncio.sleep(_RETRY_SECONDS)

    def _take(self, kind: str, pod: JsonObject) -> None:
        if kind not in ("ADDED", "MODIFIED"):
            return
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:
            self._begin(self._delete(pod))
        elif metadata["uid"] not in self._taken and pod["status"].get("phase", "Pending") == "Pending":
            self._taken.add(metadata["uid"])
            self._begin(self._play(pod))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._playing.add(task)
        task.add_done_callback(self._playing.discard)

    async def _play(self, pod: JsonObject) -> None:
        step = Step(pod["metadata"]["labels"][LABEL_STEP])
        started = _now()
        container = {
            "name": "generator",
            "image": pod["spec"]["containers"][0]["image"],
            "imageID": "",
            "restartCount": 0,
        }
        state: JsonObject = {"running": {"startedAt": started}}
        running = container | {"ready": True, "started": True, "state": state}
        await self._write(pod, _status("Running", started, running, ready=True))
        await asyncio.sleep(WORK_SECONDS[step])
        ended = {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": _now()}
        message = last_words(step, pod["metadata"]["labels"]).dumps()
        state = {"terminated": ended | {"message": message}}
        terminated = container | {"ready": False, "started": False, "state": state}
        await self._write(pod, _status("Succeeded", started, terminated, ready=False))

    async def _write(self, pod: JsonObject, status: JsonObject) -> None:
        """Write a pod's status, and try again until it succeeds."""
        while True:
            try:
                await self._api.patch(f"{_path(pod)}/status", {"status": status})
            except ApiError as error:
                if error.status in (404, 409):
                    return
                log.warning("%s: %s", _path(pod), error)
            except UNREACHABLE as error:
                log.warning("%s: %r", _path(pod), error)
            else:
                return
            await asyncio.sleep(_RETRY_SECONDS)

    async def _delete(self, pod: JsonObject) -> None:
        try:
            await self._api.delete(_path(pod), {"gracePeriodSeconds": 0})
        except (ApiError, *UNREACHABLE):
            return


def last_words(step: Step, labels: JsonObject) -> Outcome:
    """Return the termination message of a worker of this step."""
    if step is Step.PLAN:
        stage = StagePlan(name="base", total=SAMPLES, reused=0, draw=SAMPLES, relabel=0, shards=1, gpu=True)
        return Outcome(reason="Planned", ok=True, plan=[stage])
    if step is Step.STAGE:
        counts = ShardCounts(total=SAMPLES, drawn=SAMPLES, seen=SAMPLES, labelled=SAMPLES)
        return Outcome(reason="ShardDone", ok=True, counts=counts)
    published = Published(
        uri="s3://datasets/scale",
        revision=labels[LABEL_REVISION],
        samples=SAMPLES,
        rejected=0,
        instances=SAMPLES,
        manifest_sha256="00" * 32,
        accepted_by_stage={"base": SAMPLES},
    )
    return Outcome(reason="Published", ok=True, published=published)


async def _page(_: web.Request) -> web.Response:
    return web.Response(text=f"{METRIC_SHARD_SAMPLES} {SAMPLES}\n{METRIC_SHARD_DONE} {SAMPLES // 2}\n")


async def _serve_progress() -> None:
    app = web.Application()
    app.add_routes([web.get("/metrics", _page)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, ADDRESS, METRICS_PORT).start()


def _names() -> list[str]:
    return [f"played-{number}" for number in range(NODES)]


def _path(pod: JsonObject) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _status(phase: str, started: str, container: JsonObject, *, ready: bool) -> JsonObject:
    conditions = [
        {"type": kind, "status": "True" if ready else "False", "lastTransitionTime": _now()}
        for kind in ("Ready", "ContainersReady")
    ]
    return {
        "phase": phase,
        "hostIP": "127.0.0.1",
        "podIP": ADDRESS,
        "podIPs": [{"ip": ADDRESS}],
        "startTime": started,
        "conditions": conditions,
        "containerStatuses": [container],
    }


def _now(*, micro: bool = False) -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


async def main(kubeconfig: Path) -> None:
    logging.basicConfig(level=logging.WARNING)
    async with KubeApi.from_kubeconfig(kubeconfig) as api:
        kubelets = Kubelets(api)
        await kubelets.register()
        await _serve_progress()
        print(READY, flush=True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kubelets.keep_alive())
            tasks.create_task(kubelets.take_pods())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
