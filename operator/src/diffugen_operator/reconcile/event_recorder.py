"""Posting Kubernetes Events in a separate task: slow or refused Events delay nothing else.

An Event's name is a hash of its content, so the same transition, observed again after a crash, is posted once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple

from diffugen_api.contract import GROUP, KIND, VERSION
from diffugen_operator.kube.api import REQUEST_ERRORS, ApiError
from diffugen_operator.observed.base import write_time
from diffugen_operator.observed.dataset import Dataset
from diffugen_operator.policy.announcements import Announcement
from diffugen_operator.status.conditions import cut
from diffugen_operator.telemetry.logs import concerning

logger = logging.getLogger(__name__)

REPORTER = f"{GROUP}/operator"
NOTE_LENGTH = 1024
_BACKLOG = 5000

Post = Callable[[dict[str, Any]], Awaitable[None]]


class _Waiting(NamedTuple):
    """An Event that waits to be posted. It does not keep the dataset in memory: thousands may wait."""

    dataset: str
    revision: str
    manifest: dict[str, Any]


class Recorder:
    """Posts announcements as Events, one after the other."""

    def __init__(self, post: Post, *, instance: str) -> None:
        self._post = post
        self._instance = instance
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(_BACKLOG)

    def announce(self, dataset: Dataset, announcement: Announcement, now: datetime) -> None:
        """Queue an announcement; it is dropped if too many wait already."""
        try:
            manifest = event(dataset, announcement, now, self._instance)
            self._queue.put_nowait(_Waiting(f"{dataset.namespace}/{dataset.name}", dataset.status.revision, manifest))
        except asyncio.QueueFull:
            logger.warning("Too many Events wait to be posted; %s is dropped.", announcement.reason)

    async def run(self) -> None:
        """Post announcements until the task is canceled."""
        while True:
            waiting = await self._queue.get()
            try:
                with concerning(waiting.dataset, waiting.revision):
                    while pause := await self._posted(waiting.manifest):  # noqa: ASYNC110 - the API server sets the pause
                        await asyncio.sleep(pause)
            finally:
                self._queue.task_done()

    async def _posted(self, manifest: dict[str, Any]) -> float:
        """Post an Event; returns the seconds until the next try if the API server asks for one, else 0."""
        try:
            await self._post(manifest)
        except ApiError as error:
            if error.retry_after:
                return error.retry_after
            if error.code != 409:
                logger.warning("The Event %s was refused: %s", manifest["reason"], error)
        except REQUEST_ERRORS as error:
            logger.warning("The Event %s could not be posted: %r", manifest["reason"], error)
        return 0

    def waiting(self) -> int:
        """Return how many Events are not posted yet."""
        return self._queue.qsize()

    async def flush(self) -> None:
        """Wait until everything announced is posted."""
        await self._queue.join()


def event(dataset: Dataset, announcement: Announcement, now: datetime, instance: str) -> dict[str, Any]:
    """Return an Event about a dataset.

    It is of the API group "": events.k8s.io refuses the timestamp by which kubectl describe sorts.
    """
    status = dataset.status
    content = "\n".join([dataset.uid, str(status.attempt), announcement.reason, announcement.message])
    if announcement.reason in ("Suspended", "Resumed"):  # These may occur many times in a run.
        content += f"\n{dataset.generation}"
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    # kubectl describe sorts by lastTimestamp, which has whole seconds, and then by name.
    name = f"{dataset.name[:220].rstrip('-.')}.{status.attempt:06x}.{announcement.order:02x}.{digest}"
    second = write_time(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": dataset.namespace},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "firstTimestamp": second,
        "lastTimestamp": second,
        "count": 1,
        "reportingComponent": REPORTER,
        "reportingInstance": cut(instance, 128),
        "action": "Reconcile",
        "reason": announcement.reason,
        "type": "Warning" if announcement.warning else "Normal",
        "message": cut(announcement.message, NOTE_LENGTH),
        "involvedObject": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "namespace": dataset.namespace,
            "name": dataset.name,
            "uid": dataset.uid,
        },
    }
