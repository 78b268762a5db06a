"""Watch events of datasets: kopf watches them, and its events go to our cache and queue.

kopf only transports events; it keeps no state. Only `on.event` is used, which writes nothing to any object. A change
handler, a timer or a daemon would write annotations and finalizers to users' objects.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import kopf

from diffugen_api.contract import GROUP, PLURAL, VERSION
from diffugen_operator.kube.api import PAGE
from diffugen_operator.kube.backoff import backoff
from diffugen_operator.kube.cache import Cache, Resource
from diffugen_operator.kube.connection import Connection
from diffugen_operator.kube.work_queue import WorkQueue
from diffugen_operator.settings import Settings

logger = logging.getLogger(__name__)

NOT_FOUND = 404
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_SETTLING_SECONDS = 1.0
"""How long to wait for further events before a dataset is reconciled, where nothing urgent has happened."""
_ENDS = frozenset({"Complete", "Failed", "FailureTarget"})
"""Conditions of a Job that has ended, or that is ending because it failed."""


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
        if key is None or (kind != "DELETED" and _has_succeeded(resource, obj)):
            return
        if resource is Resource.DATASETS and _spec_changed(obj):
            self._queue.add(key, urgent=True)
        else:
            self._queue.add_after(key, _SETTLING_SECONDS if _more_may_follow(resource, kind, obj) else 0.0)

    def newest_dataset(self, namespace: str | None) -> int:
        """Return the highest resourceVersion of the datasets of a namespace (None: of all); 0 without datasets."""
        return self._cache.newest(Resource.DATASETS, namespace)


def _has_succeeded(resource: Resource, obj: dict[str, Any]) -> bool:
    """Whether an object is a pod that has succeeded: its Job changes next, and nothing is decided before that."""
    return resource is Resource.PODS and (obj.get("status") or {}).get("phase") == "Succeeded"


def _more_may_follow(resource: Resource, kind: str | None, obj: dict[str, Any]) -> bool:
    """Whether an event is often followed by others within a second, so that one reconcile serves all of them.

    A pod has three events while it starts. A Job counts its last pods just before it ends. A status that this operator
    wrote often arrives before the answer to that request, and then looks like a change.
    """
    if resource is Resource.PODS:
        return True
    if resource is Resource.DATASETS:
        return kind == "MODIFIED"
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return kind != "DELETED" and not any(each["type"] in _ENDS and each["status"] == "True" for each in conditions)


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
    # kopf has a task for each object that just changed: few at once when everything is listed, each for a short time.
    settings.queueing.worker_limit = 50
    settings.queueing.idle_timeout = 0.05
    settings.watching.chunk_size = PAGE
    settings.watching.inactivity_timeout = watch_silence
    return settings


class DatasetTransport:
    """Runs kopf until the process is stopped.

    kopf ends at any answer to its watch that it does not expect: a plain 410, a 404, an error in the stream, an API
    server that is unreachable for a minute. Then it is started again, and lists the datasets. If the CRD is missing,
    that waits until the CRD is back.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        inbox: Inbox,
        settings: Settings,
        crd_is_back: Callable[[], Coroutine[Any, Any, None]],
        unless_stopped: Callable[[Coroutine[Any, Any, None]], Awaitable[bool]],
    ) -> None:
        """`crd_is_back` waits for the CRD; `unless_stopped` waits, and returns False if a signal came meanwhile."""
        self._connection, self._inbox, self._settings = connection, inbox, settings
        self._crd_is_back, self._unless_stopped = crd_is_back, unless_stopped
        self._running: asyncio.Task[None] | None = None
        self._again = False
        self.crd_missing = False
        """Whether the CRD was deleted and is not back yet."""

    async def run(self) -> None:
        """Run kopf, again and again, until SIGTERM or SIGINT ends it."""
        failures = 0
        while True:
            began = time.monotonic()
            self._running = asyncio.create_task(self._operator(), name="kopf")
            try:
                await self._running
            except asyncio.CancelledError:
                if not self._again:
                    raise
                self._again = False
            except Exception as error:  # noqa: BLE001 - after any error, kopf is started again
                failures = 1 if time.monotonic() - began > _LONGEST_PAUSE else failures + 1
                if not await self._unless_stopped(self._recovered(error, failures)):
                    return
            else:
                return

    def begin_again(self) -> None:
        """Let kopf list the datasets and watch them from there."""
        if self._running is not None and not self._running.done():
            self._again = True
            self._running.cancel()

    async def _operator(self) -> None:
        await kopf.operator(
            registry=registry(self._inbox, self._connection),
            settings=kopf_settings(watch_silence=self._settings.watch_silence),
            standalone=True,
            clusterwide=not self._settings.namespaces,
            namespaces=self._settings.namespaces,
        )

    async def _recovered(self, error: Exception, failures: int) -> None:
        """Wait until kopf can be started again."""
        if getattr(error, "status", None) == NOT_FOUND:
            self.crd_missing = True
            await self._crd_is_back()
            self.crd_missing = False
            return
        pause = backoff(failures, base=_SHORTEST_PAUSE, limit=_LONGEST_PAUSE)
        words = " ".join(str(error).split()) or type(error).__name__
        logger.warning("The watch of datasets ended: %s. It begins again in %.1f s.", words, pause)
        await asyncio.sleep(pause)
