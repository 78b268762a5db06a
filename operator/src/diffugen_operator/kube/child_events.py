"""The watch of Jobs and pods.

kopf watches only the datasets. There are about six times as many Jobs and pods, and they change six times as often.
kopf would read all of them into memory at its start, and keep a task, a queue and the whole object for each. Here an
object is reduced to what decisions need as soon as it is read.

A watch continues from the version of the last list or event. The objects are listed again if the API server no longer
has that version, or does not have it yet, as after etcd was restored from a snapshot. A watch that gets no event for
longer than bookmarks take to arrive is restarted; if the next one gets none either, the objects are listed again.
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
from diffugen_operator.kube.connection import TRANSPORT_ERRORS, WatchEndedError, reason_of
from diffugen_operator.kube.dataset_events import Inbox

logger = logging.getLogger(__name__)

GONE = 410
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_MOST_SILENCES = 2
"""After so many watches in a row without any event, the objects are listed: their version may never come."""


class Watchable(Protocol):
    """An API server whose objects can be watched."""

    def watch(self, resource: Resource, namespace: str | None, version: int) -> AsyncIterator[tuple[str, Object]]:
        """Yield the type and the object of each change after `version`, until the API server ends the watch."""

    async def version(self, resource: Resource, namespace: str | None) -> int:
        """Return the resourceVersion that the API server has reached."""


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
        count: Callable[[str, str], None] = lambda resource, reason: None,
        rewound: Callable[[int], None] = lambda version: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`relist` lists the kind again and returns the version of each namespace's list; `count` counts restarts.

        `rewound` is called with the API server's version where that went back.
        """
        self._cluster, self._inbox, self._resource, self._namespace = cluster, inbox, resource, namespace
        self._relist, self._count, self._rewound, self._jitter = relist, count, rewound, jitter
        self._rewound_to: int | None = None
        self._interrupted = False

    def rewind(self, version: int) -> None:
        """Continue from this version after the present watch has ended: the API server's versions went back."""
        self._rewound_to = version

    async def run(self, version: int) -> None:
        """Watch from this version on, until the task is canceled."""
        failures = silences = 0
        while True:
            reason = "ended"
            if self._interrupted:
                version = await self._checked(version)
            try:
                async for kind, obj in self._cluster.watch(self._resource, self._namespace, version):
                    version = self._take(kind, obj) or version
                    failures = silences = 0
            except ApiError as error:
                if error.code == GONE or error.version_ahead:
                    reason = "gone"
                    logger.info("The watch of %s cannot go on; they are listed again.", self._resource.value)
                    version = await self._relisted(version)
                else:
                    failures, reason = failures + 1, reason_of(error.code)
                    await self._pause(failures, error, at_least=error.retry_after)
            except WatchEndedError:
                reason = "login"
            except TimeoutError as error:
                silences, reason = silences + 1, "silent"
                if silences >= _MOST_SILENCES:
                    version, silences = await self._relisted(version), 0
                else:
                    failures += 1
                    await self._pause(failures, error)
            except TRANSPORT_ERRORS as error:
                failures, reason, self._interrupted = failures + 1, "interrupted", True
                await self._pause(failures, error)
            self._count(self._resource.value, reason)
            if self._rewound_to is not None:
                version, self._rewound_to = self._rewound_to, None

    def _take(self, kind: str, obj: Object) -> int:
        """Handle one event; returns the version that the watch has reached."""
        if kind == "ERROR":
            raise ApiError(obj.get("code") or 500, obj.get("reason") or "", obj.get("message") or "")
        if kind != "BOOKMARK":
            self._inbox.take(self._resource, kind, obj)
        return version_of(obj)

    async def _checked(self, version: int) -> int:
        """Return the version to continue from after the API server was away: it may have been restored meanwhile.

        A watch from a version that it reaches much later is silent until then. A watch that has seen few
        changes has a low version, which the API server may have reached already. So the version of the datasets is
        compared, too.
        """
        newest = self._inbox.newest_dataset(self._namespace)  # Before the requests, as it may grow meanwhile.
        try:
            reached = await self._cluster.version(self._resource, self._namespace)
            datasets = await self._cluster.version(Resource.DATASETS, self._namespace)
        except REQUEST_ERRORS:
            return version  # The watch is refused too, and this is asked again.
        self._interrupted = False
        if reached >= version and datasets >= newest:
            return version
        if reached >= version:  # `_relisted` would not notice.
            self._rewound(reached)
        return await self._relisted(version)

    async def _relisted(self, reached: int) -> int:
        """List the objects; `reached` is the version that the watch had reached."""
        failures = 0
        while True:
            try:
                version = (await self._relist(self._resource))[self._namespace]
            except REQUEST_ERRORS as error:
                failures += 1
                await self._pause(failures, error)
            else:
                if version < reached:
                    self._rewound(version)
                return version

    async def _pause(self, failures: int, error: Exception, *, at_least: float = 0) -> None:
        pause = jittered(backoff(failures, base=_SHORTEST_PAUSE, limit=_LONGEST_PAUSE), self._jitter())
        pause = max(pause, at_least)
        if failures > 1:  # A single interruption of an idle connection is normal.
            what = self._resource.value
            logger.warning("The watch of %s was interrupted: %r; again in %.1f s.", what, error, pause)
        await asyncio.sleep(pause)
