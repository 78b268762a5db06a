"""How the datasets' changes come in: kopf watches, and its events go to our cache and queue.

kopf is the transport, never the state: only `on.event` is used, which keeps nothing on any object. A change
handler, a timer or a daemon would write annotations and finalizers into users' objects.
"""

from __future__ import annotations

import logging
from typing import Any

import kopf

from diffugen_api.contract import GROUP, PLURAL, VERSION
from diffugen_operator.kube.cache import Cache, Resource
from diffugen_operator.kube.connection import Connection
from diffugen_operator.kube.work_queue import WorkQueue

_SETTLING_SECONDS = 0.25
"""How long to wait for what a pod says next."""


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
        if key is None:
            return
        if resource is Resource.DATASETS:
            self._queue.add(key, urgent=_asks(obj))
        else:
            # A pod tells of itself three times while it starts, and its end comes before its Job's.
            self._queue.add_after(key, _SETTLING_SECONDS if resource is Resource.PODS else 0.0)


def _asks(dataset: dict[str, Any]) -> bool:
    """Tell whether somebody has asked for something that was not looked at yet."""
    metadata, status = dataset["metadata"], dataset.get("status") or {}
    return bool(metadata.get("generation") != status.get("observedGeneration"))


def registry(inbox: Inbox, connection: Connection) -> kopf.OperatorRegistry:
    """Return kopf's handlers: a login, and an event handler for the datasets."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def log_in(**_: Any) -> kopf.AiohttpSession:
        return await connection.lend()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def on_dataset(event: kopf.RawEvent, **_: Any) -> None:
        inbox.take(Resource.DATASETS, event["type"], dict(event["object"]))

    return handlers


class _NoDiffs(kopf.DiffBaseStorage):
    """Compares nothing. kopf's own copies each object several times for every event: most of what an event costs."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return {}

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Keeps nothing: there are no handlers whose progress would have to be kept."""

    def fetch(self, *, key: str, body: kopf.Body) -> None:
        return None

    def store(self, *, key: str, record: object, body: kopf.Body, patch: kopf.Patch) -> None:
        return None

    def purge(self, *, key: str, body: kopf.Body, patch: kopf.Patch) -> None:
        return None

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def kopf_settings(*, watch_silence: float) -> kopf.OperatorSettings:
    """Return how kopf is to watch: without Events of its own or a look at other CRDs."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.posting.level = logging.CRITICAL
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.persistence.progress_storage = _NoProgress()
    # A task for each object that has just changed: not for all at once when everything is listed, and none for long.
    settings.queueing.worker_limit = 50
    settings.queueing.idle_timeout = 0.05
    settings.watching.chunk_size = 500
    settings.watching.inactivity_timeout = watch_silence
    return settings
