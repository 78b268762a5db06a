"""How changes of datasets arrive: kopf watches them, and its events go to our cache and queue.

kopf only transports events; it keeps no state. Only `on.event` is used, which writes nothing to any object. A change
handler, a timer or a daemon would write annotations and finalizers to users' objects.
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
"""How long to wait for the next event of a pod before its dataset is reconciled."""


class Inbox:
    """Receives watch events."""

    def __init__(self, cache: Cache, queue: WorkQueue) -> None:
        self._cache = cache
        self._queue = queue

    def take(self, resource: Resource, kind: str | None, obj: dict[str, Any]) -> None:
        """Handle one event: store the object, and queue its dataset if anything changed."""
        key = self._cache.key_of(resource, obj)
        if kind == "DELETED":
            self._cache.drop(resource, obj)
        elif not self._cache.put(resource, obj):
            return
        key = key or self._cache.key_of(resource, obj)
        if key is None:
            return
        if resource is Resource.DATASETS:
            self._queue.add(key, urgent=_spec_changed(obj))
        else:
            # A pod has three events while it starts, and its end is reported before its Job's.
            self._queue.add_after(key, _SETTLING_SECONDS if resource is Resource.PODS else 0.0)


def _spec_changed(dataset: dict[str, Any]) -> bool:
    """Whether the spec was changed since the last reconcile."""
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
    """Compares nothing. kopf's own storage copies each object several times per event: most of an event's cost."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return {}

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Stores nothing: no handler has progress to store."""

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
    """Return kopf's settings: no Events of its own, and no scan of other CRDs."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.posting.level = logging.CRITICAL
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.persistence.progress_storage = _NoProgress()
    # kopf has a task for each object that just changed: few at once when everything is listed, and each only shortly.
    settings.queueing.worker_limit = 50
    settings.queueing.idle_timeout = 0.05
    settings.watching.chunk_size = 500
    settings.watching.inactivity_timeout = watch_silence
    return settings
