"""Registers the node: creates the Node object and its Lease, and renews them.

If the Lease is not renewed for the grace period, the control plane marks the node NotReady and later evicts its pods.
The node is Ready again only when it writes its own status. So each heartbeat checks whether the status was changed.
"""

import asyncio
import logging
import os
import platform
from datetime import UTC, datetime

from devcluster.binaries import KUBERNETES_VERSION
from devcluster.kubeapi import UNREACHABLE, ApiError, JsonObject, KubeApi
from devcluster.node.containers import timestamp

log = logging.getLogger(__name__)

_RETRY_S = 0.5
_NODES = "/api/v1/nodes"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class Registration:
    """This node's entry in the cluster."""

    def __init__(self, api: KubeApi, *, name: str, address: str, kubelet_port: int, gpus: int, grace_s: int) -> None:
        self._api = api
        self._name = name
        self._address = address
        self._kubelet_port = kubelet_port
        self._grace_s = grace_s
        # More than this machine has: the scheduler counts the requests of pods, but nothing enforces them.
        self._capacity = {
            "cpu": "64",
            "memory": "256Gi",
            "ephemeral-storage": "1Ti",
            "pods": "250",
            "nvidia.com/gpu": str(gpus),
        }

    async def register(self) -> None:
        """Create the Node and its Lease, or use those of an earlier agent."""
        while True:
            try:
                await self._ensure_node()
                await self._renew()
            except (ApiError, *UNREACHABLE) as error:
                log.info("cannot register yet: %r", error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def keep_alive(self) -> None:
        """Renew the Lease until cancelled, and correct the Node's status where it was changed meanwhile."""
        while True:
            await asyncio.sleep(self._grace_s / 4)  # the same proportion as a kubelet: 10 s of 40
            try:
                await self._renew()
                if not await self._is_as_registered():
                    await self._ensure_node()
            except (ApiError, *UNREACHABLE) as error:
                log.warning("heartbeat: %r", error)

    async def _ensure_node(self) -> None:
        try:
            await self._api.create(_NODES, {"metadata": {"name": self._name, "labels": self._labels()}})
        except ApiError as error:
            if error.status != 409:  # 409: it exists already
                raise
        await self._api.patch(f"{_NODES}/{self._name}/status", {"status": self._status()})
        # Admission taints each new node as not ready; the controller would remove the taint in its next round.
        await self._api.patch(
            f"{_NODES}/{self._name}", {"spec": {"taints": None}}, content_type="application/merge-patch+json"
        )

    async def _is_as_registered(self) -> bool:
        try:
            node = await self._api.get(f"{_NODES}/{self._name}")
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        ready = [entry["status"] for entry in node["status"].get("conditions", []) if entry["type"] == "Ready"]
        return ready == ["True"]

    async def _renew(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._name, "leaseDurationSeconds": self._grace_s, "renewTime": now}
        try:
            await self._api.patch(f"{_LEASES}/{self._name}", {"spec": spec})
        except ApiError as error:
            if error.status != 404:
                raise
            await self._api.create(_LEASES, {"metadata": {"name": self._name}, "spec": spec})

    def _labels(self) -> dict[str, str]:
        return {
            "kubernetes.io/hostname": self._name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
            "devcluster/node": "process",
        }

    def _status(self) -> JsonObject:
        now = timestamp()
        wrong = {
            "MemoryPressure": "KubeletHasSufficientMemory",
            "DiskPressure": "KubeletHasNoDiskPressure",
            "PIDPressure": "KubeletHasSufficientPID",
        }
        conditions = [_condition(kind, "False", reason, now) for kind, reason in wrong.items()]
        conditions.append(_condition("Ready", "True", "KubeletReady", now))
        uname = os.uname()
        return {
            "capacity": self._capacity,
            "allocatable": self._capacity,
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": self._address},
                {"type": "Hostname", "address": self._name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._kubelet_port}},
            "nodeInfo": {
                "machineID": self._name,
                "systemUUID": self._name,
                "bootID": self._name,
                "kernelVersion": uname.release,
                "osImage": "local processes",
                "containerRuntimeVersion": "process://1",
                "kubeletVersion": KUBERNETES_VERSION,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": self._labels()["kubernetes.io/arch"],
            },
        }


def _condition(kind: str, status: str, reason: str, now: str) -> JsonObject:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
