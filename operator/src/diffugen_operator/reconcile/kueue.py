"""Why Kueue has not admitted a Job, if the operator may read it.

Kueue keeps a Workload for each queued Job; its conditions give the reason why the Job is not admitted, or why it was
evicted. The right to read Workloads is optional (`operator/rbac-kueue.yaml`): without it, or without Kueue, no reason
is reported, and reading is tried again after a while. If Kueue does not answer, no reason is reported either: no
dataset fails, or waits for long, because of that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from diffugen_operator.kube.api import REQUEST_ERRORS, ApiError
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


class Kueue:
    """Reads Workloads while Kueue can be read."""

    def __init__(self, requests: KueueRequests, clock: Clock) -> None:
        self._requests, self._clock = requests, clock
        self._version = ""
        self._again_at = float("-inf")
        self._quiet_until = float("-inf")

    @property
    def readable(self) -> bool:
        """Whether Kueue was found, and access allowed, when it was last asked."""
        return self._clock() >= self._again_at

    async def why_waiting(self, namespace: str, job_uid: str) -> Trouble | None:
        """Return Kueue's reason why the Job with this uid waits; None if it is not known."""
        if not self.readable or self._clock() < self._quiet_until:
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._version = self._version or await self._requests.kueue_version()
                found = await self._requests.workloads_of(self._version, namespace, job_uid)
        except REQUEST_ERRORS as error:
            logger.info("Kueue's reasons for queued Jobs cannot be read: %s", str(error) or repr(error))
            self._version = ""
            if isinstance(error, ApiError) and error.code in (403, 404):
                self._again_at = self._clock() + AGAIN_SECONDS
            else:
                self._quiet_until = self._clock() + TROUBLE_SECONDS
            return None
        return why_not_admitted(found[0]) if found else None


def why_not_admitted(workload: Mapping[str, Any]) -> Trouble | None:
    """Return why a Workload has no quota: why it was evicted, and why it does not get quota (again)."""
    conditions = {c["type"]: c for c in (workload.get("status") or {}).get("conditions") or ()}
    reserved, evicted = conditions.get("QuotaReserved") or {}, conditions.get("Evicted") or {}
    if reserved.get("status") == "True":
        return None
    eviction = evicted if evicted.get("status") == "True" else {}
    messages = [c["message"].rstrip(". ") for c in (eviction, reserved) if c.get("message")]
    reason = eviction.get("reason") or reserved.get("reason") or ""
    return Trouble(reason=reason, message=". ".join(dict.fromkeys(messages))) if reason and messages else None
