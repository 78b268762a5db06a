"""Writes the node's events, which `kubectl describe pod` shows when a pod does not start."""

import logging
import uuid

from devcluster.kubeapi import UNREACHABLE, ApiError, JsonObject, KubeApi
from devcluster.node.containers import timestamp

log = logging.getLogger(__name__)


class EventRecorder:
    """Writes events as the node; an event that cannot be written is dropped."""

    def __init__(self, api: KubeApi, node: str) -> None:
        self._api = api
        self._source = {"component": "devcluster-node", "host": node}

    async def warn(self, pod: JsonObject, reason: str, message: str) -> None:
        """Write a warning about the pod."""
        meta, now = pod["metadata"], timestamp()
        event = {
            "metadata": {"name": f"{meta['name']}.{uuid.uuid4().hex[:16]}", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
            "type": "Warning",
            "reason": reason,
            "message": message[:1000],
            "source": self._source,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._api.create(f"/api/v1/namespaces/{meta['namespace']}/events", event)
        except (ApiError, *UNREACHABLE) as error:
            log.warning("event %s: %r", reason, error)
