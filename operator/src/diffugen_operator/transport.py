"""How the cluster's changes come in: kopf watches, and its events go to our cache and queue.

kopf is the transport, never the state: only `on.event` is used, which keeps nothing on any object. A change
handler, a timer or a daemon would write annotations and finalizers into users' objects.
"""

from __future__ import annotations

import logging
from typing import Any

import kopf

from diffugen_api.contract import GROUP, LABEL_MANAGED_BY, MANAGED_BY, PLURAL, VERSION
from diffugen_operator.cache import Cache, Resource
from diffugen_operator.connection import Connection
from diffugen_operator.queueing import WorkQueue

_OURS = f"{LABEL_MANAGED_BY}={MANAGED_BY}"


class Inbox:
    """Takes in watch events."""

    def __init__(self, cache: Cache, queue: WorkQueue) -> None:
        self._cache = cache
        self._queue = queue

    def take(self, resource: Resource, kind: str | None, obj: dict[str, Any]) -> None:
        """Take in one event: keep the object, and put its dataset in line if that brought anything new."""
        key = self._cache.key_of(resource, obj)
        if kind == "DELETED":
            self._cache.drop(resource, obj)
        elif not self._cache.put(resource, obj):
            return
        key = key or self._cache.key_of(resource, obj)
        if key is not None:
            self._queue.add(key)


def registry(inbox: Inbox, connection: Connection) -> kopf.OperatorRegistry:
    """Return kopf's handlers: a login, and an event handler for each resource."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def log_in(**_: Any) -> kopf.AiohttpSession:
        return await connection.lend()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def on_dataset(event: kopf.RawEvent, **_: Any) -> None:
        inbox.take(Resource.DATASETS, event["type"], dict(event["object"]))

    @kopf.on.event("batch", "v1", "jobs", registry=handlers, labels={LABEL_MANAGED_BY: MANAGED_BY})
    async def on_job(event: kopf.RawEvent, **_: Any) -> None:
        inbox.take(Resource.JOBS, event["type"], dict(event["object"]))

    @kopf.on.event("", "v1", "pods", registry=handlers, labels={LABEL_MANAGED_BY: MANAGED_BY})
    async def on_pod(event: kopf.RawEvent, **_: Any) -> None:
        inbox.take(Resource.PODS, event["type"], dict(event["object"]))

    return handlers


def kopf_settings() -> kopf.OperatorSettings:
    """Return how kopf is to watch: only what is ours, without Events of its own or a look at other CRDs."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.posting.level = logging.CRITICAL
    settings.scanning.disabled = True
    settings.watching.label_selectors["batch", "v1", "jobs"] = _OURS
    settings.watching.label_selectors["", "v1", "pods"] = _OURS
    settings.watching.chunk_size = 500
    return settings
