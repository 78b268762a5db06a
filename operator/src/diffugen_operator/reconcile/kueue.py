"""Why Kueue has not admitted a Job, if the operator may read it.

Kueue keeps a Workload for each Job; its conditions give the reason why the Job is not admitted, or why it was evicted.
The right to read Workloads is optional (`operator/rbac-kueue.yaml`). Where they may be watched, their reasons are known
at once. Where they may only be listed, the operator asks about each waiting Job. Without the right, or without Kueue,
no reason is reported, and reading is tried again after a while. If Kueue does not answer, no reason is reported either:
no dataset fails, or waits for long, because of that.

The watch begins when the first Job waits.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from diffugen_operator.kube.api import KUEUE_JOB_UID, REQUEST_ERRORS, ApiError
from diffugen_operator.kube.backoff import backoff, jittered
from diffugen_operator.kube.cache import Object, owner_of, version_of
from diffugen_operator.kube.connection import TRANSPORT_ERRORS, WatchEndedError, reason_of
from diffugen_operator.kube.work_queue import Clock
from diffugen_operator.observed.base import Trouble
from diffugen_operator.reconcile.requests import KueueRequests

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 600.0
"""How long not to ask Kueue after it was not found or access was denied."""

TROUBLE_SECONDS = 30.0
"""How long not to ask Kueue after it failed to answer."""

ANSWER_SECONDS = 5.0
"""How long Kueue may take to answer; a worker waits for it."""

LOOK_SECONDS = 30.0
"""How often Kueue is asked about a waiting Job where its Workloads cannot be watched."""

FIRST_LOOK_SECONDS = 1.0
"""When it is asked again while it has given no reason; the pause doubles up to LOOK_SECONDS."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_DENIED = (403, 404)


class _Waiting(NamedTuple):
    """A Job that Kueue has not admitted."""

    namespace: str
    job: str
    why: Trouble | None


class Kueue:
    """Reads Workloads while Kueue can be read."""

    def __init__(
        self,
        requests: KueueRequests,
        clock: Clock,
        *,
        changed: Callable[[str, str], None] = lambda namespace, job: None,
        count: Callable[[str, str], None] = lambda resource, reason: None,
    ) -> None:
        """`changed` is called with the namespace and name of a Job whose reason changed; `count` counts restarts."""
        self._requests, self._clock, self._changed, self._count = requests, clock, changed, count
        self._version = ""
        self._again_at = float("-inf")
        self._quiet_until = float("-inf")
        self._wanted = asyncio.Event()
        self._heard: dict[str | None, dict[str, _Waiting]] = {}
        """The Jobs that wait, by their uid, for each namespace (None: all) that is watched now."""

    @property
    def readable(self) -> bool:
        """Whether Kueue was found, and access allowed, when it was last asked."""
        return self._clock() >= self._again_at

    def watched(self, namespace: str) -> bool:
        """Whether each change of a Workload in this namespace is heard of."""
        return namespace in self._heard or None in self._heard

    async def why_waiting(self, namespace: str, job_uid: str) -> Trouble | None:
        """Return Kueue's reason why the Job with this uid waits; None if it is not known."""
        self._wanted.set()
        for heard in (self._heard.get(None), self._heard.get(namespace)):
            if heard is not None:
                return _why(heard.get(job_uid))
        if not self.readable or self._clock() < self._quiet_until:
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._version = self._version or await self._requests.kueue_version()
                found = await self._requests.workloads_of(self._version, namespace, job_uid)
        except REQUEST_ERRORS as error:
            logger.info("Kueue's reasons for queued Jobs cannot be read: %s", str(error) or repr(error))
            self._version = ""
            if isinstance(error, ApiError) and error.code in _DENIED:
                self._again_at = self._clock() + AGAIN_SECONDS
            else:
                self._quiet_until = self._clock() + TROUBLE_SECONDS
            return None
        return why_not_admitted(found[0]) if found else None

    async def watch(self, namespace: str | None, *, jitter: Callable[[], float] = random.random) -> None:
        """Watch the Workloads of a namespace (None: of all) from when a Job waits, until the task is canceled."""
        await self._wanted.wait()
        failures = 0
        while True:
            pause = at_least = 0.0
            try:
                await self._follow(namespace)
            except WatchEndedError:
                reason = "login"
            except ApiError as error:
                reason, at_least, pause = reason_of(error.code), error.retry_after, _SHORTEST_PAUSE
                if error.code in _DENIED:
                    logger.info("Kueue's Workloads are not watched: %s", error)
                    pause = AGAIN_SECONDS
            except TRANSPORT_ERRORS as error:
                reason, pause = "silent" if isinstance(error, TimeoutError) else "interrupted", _SHORTEST_PAUSE
            lost = self._heard.pop(namespace, None)
            failures = failures + 1 if lost is None else 1
            for waiting in (lost or {}).values():  # From now on Kueue is asked about them.
                self._changed(waiting.namespace, waiting.job)
            self._count("workloads", reason)
            pause = backoff(failures, base=pause, limit=max(pause, _LONGEST_PAUSE))
            await asyncio.sleep(max(jittered(pause, jitter()), at_least))

    async def _follow(self, namespace: str | None) -> None:
        """List the Workloads and take each change, until the API server ends the watch with an error."""
        version = await self._requests.kueue_version()
        since, former = 0, self._heard.get(namespace, {})
        listed: dict[str, _Waiting] = {}
        async for workloads, reached in self._requests.workload_pages(version, namespace):
            since = since or reached
            for workload in workloads:
                self._take(listed, former, workload)
        self._heard[namespace] = listed
        while True:
            async for kind, workload in self._requests.watch_workloads(version, namespace, since):
                if kind == "ERROR":
                    raise ApiError(workload.get("code") or 500, "", workload.get("message") or "")
                since = version_of(workload)
                if kind == "DELETED":
                    listed.pop(_job_uid(workload), None)
                elif kind != "BOOKMARK":
                    self._take(listed, listed, workload)
            self._count("workloads", "ended")
            await asyncio.sleep(_SHORTEST_PAUSE)

    def _take(self, waiting: dict[str, _Waiting], former: Mapping[str, _Waiting], workload: Object) -> None:
        uid, why, owner = _job_uid(workload), why_not_admitted(workload), owner_of(workload)
        before = _why(former.get(uid))
        if _is_admitted(workload) or owner is None:
            waiting.pop(uid, None)
        else:
            waiting[uid] = _Waiting(workload["metadata"]["namespace"], owner["name"], why)
        if why != before and owner is not None:
            self._changed(workload["metadata"]["namespace"], owner["name"])


def _why(waiting: _Waiting | None) -> Trouble | None:
    return waiting.why if waiting is not None else None


def _job_uid(workload: Mapping[str, Any]) -> str:
    return str((workload["metadata"].get("labels") or {}).get(KUEUE_JOB_UID, ""))


def _is_admitted(workload: Mapping[str, Any]) -> bool:
    conditions = (workload.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Admitted" and c.get("status") == "True" for c in conditions)


def why_not_admitted(workload: Mapping[str, Any]) -> Trouble | None:
    """Return why a Workload is not admitted: why it was evicted, why it has no quota, or which check it waits for."""
    status = workload.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    reserved, evicted = conditions.get("QuotaReserved") or {}, conditions.get("Evicted") or {}
    if reserved.get("status") == "True":
        admitted = (conditions.get("Admitted") or {}).get("status") == "True"
        return None if admitted else _check_of(status)
    eviction = evicted if evicted.get("status") == "True" else {}
    messages = [c["message"].rstrip(". ") for c in (eviction, reserved) if c.get("message")]
    reason = eviction.get("reason") or reserved.get("reason") or ""
    return Trouble(reason=reason, message=". ".join(dict.fromkeys(messages))) if reason and messages else None


def _check_of(status: Mapping[str, Any]) -> Trouble | None:
    """Return the AdmissionCheck that a Workload with quota waits for."""
    check = next((c for c in status.get("admissionChecks") or () if c.get("state") != "Ready"), None)
    if check is None:
        return None
    state = check.get("state") or "Pending"
    said = f": {check['message'].rstrip('. ')}" if check.get("message") else ""
    message = f"it has quota, and its admission check {check.get('name', '')} is {state}{said}"
    return Trouble(reason=f"AdmissionCheck{state}", message=message)
