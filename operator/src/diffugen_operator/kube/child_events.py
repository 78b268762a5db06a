"""The watch of Jobs and pods.

kopf watches only the datasets. There are about six times as many Jobs and pods, and they change six times as often.
kopf would read all of them into memory at its start, and keep a task, a queue and the whole object for each. Here an
object is reduced to what decisions need as soon as it is read.

A watch continues from the version of the last list or event. If the API server no longer has that version, the objects
are listed again. If a watch gets no event for longer than bookmarks take to arrive, it is restarted.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

from diffugen_operator.kube.api import REQUEST_ERRORS, ApiError
from diffugen_operator.kube.backoff import backoff, jittered
from diffugen_operator.kube.cache import Object, Resource, version_of
from diffugen_operator.kube.connection import TRANSPORT_ERRORS
from diffugen_operator.kube.dataset_events import Inbox

logger = logging.getLogger(__name__)

GONE = 410
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class Watchable(Protocol):
    """An API server whose objects can be watched."""

    def watch(self, resource: Resource, namespace: str | None, version: int) -> AsyncIterator[tuple[str, Object]]:
        """Yield the type and the object of each change after `version`, until the API server ends the watch."""


class Watch:
    """Watches one kind in one namespace, or in all namespaces."""

    def __init__(
        self,
        *,
        cluster: Watchable,
        inbox: Inbox,
        resource: Resource,
        namespace: str | None,
        relist: Callable[[Resource], Awaitable[Mapping[str | None, int]]],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`relist` lists the kind again; it returns the version of each namespace's list."""
        self._cluster, self._inbox, self._resource, self._namespace = cluster, inbox, resource, namespace
        self._relist, self._jitter = relist, jitter

    async def run(self, version: int) -> None:
        """Watch from this version on, until the task is canceled."""
        failures = 0
        while True:
            try:
                async for kind, obj in self._cluster.watch(self._resource, self._namespace, version):
                    version = self._take(kind, obj) or version
                    failures = 0
            except ApiError as error:
                if error.code == GONE:
                    logger.info("The watch of %s is too old; they are listed again.", self._resource.value)
                    version = await self._relisted(version)
                else:
                    failures += 1
                    await self._pause(failures, error, at_least=error.retry_after)
            except TRANSPORT_ERRORS as error:
                failures += 1
                await self._pause(failures, error)

    def _take(self, kind: str, obj: Object) -> int:
        """Handle one event; returns the version that the watch has reached."""
        if kind == "ERROR":
            raise ApiError(obj.get("code") or 500, obj.get("reason") or "", obj.get("message") or "")
        if kind != "BOOKMARK":
            self._inbox.take(self._resource, kind, obj)
        return version_of(obj)

    async def _relisted(self, version: int) -> int:
        failures = 0
        while True:
            try:
                return (await self._relist(self._resource))[self._namespace]
            except REQUEST_ERRORS as error:
                failures += 1
                await self._pause(failures, error)

    async def _pause(self, failures: int, error: Exception, *, at_least: float = 0) -> None:
        pause = jittered(backoff(failures, base=_SHORTEST_PAUSE, limit=_LONGEST_PAUSE), self._jitter())
        pause = max(pause, at_least)
        if failures > 1:  # A single interruption of an idle connection is normal.
            what = self._resource.value
            logger.warning("The watch of %s was interrupted: %r; again in %.1f s.", what, error, pause)
        await asyncio.sleep(pause)
