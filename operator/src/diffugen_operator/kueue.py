"""What Kueue says of a Job that waits in its queue, where the operator may read it.

Kueue keeps a Workload for each queued Job; its conditions say why it is not admitted, or why it was put back in line.
To read Workloads is a right of its own, and optional (`operator/rbac-kueue.yaml`): without it, or without Kueue,
nothing is said, and it is tried again after a while.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from diffugen_operator.cluster import ApiError, Cluster
from diffugen_operator.observed import Trouble
from diffugen_operator.queueing import Clock

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 600.0
"""How long to leave Kueue alone after it was found absent, or closed to us."""


class Kueue:
    """Reads Workloads while that is possible."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster, self._clock = cluster, clock
        self._version = ""
        self._again_at = float("-inf")

    @property
    def readable(self) -> bool:
        """Whether Kueue was there, and open to us, when it was last asked."""
        return self._clock() >= self._again_at

    async def words_about(self, namespace: str, job_uid: str) -> Trouble | None:
        """Return why the Job of this uid waits, in Kueue's words; None where that cannot be told."""
        if not self.readable:
            return None
        try:
            self._version = self._version or await self._cluster.kueue_version()
            found = await self._cluster.workloads_of(self._version, namespace, job_uid)
        except ApiError as error:
            if error.code not in (403, 404):
                raise
            logger.info("What Kueue says of queued Jobs cannot be read: %s", error.message)
            self._version, self._again_at = "", self._clock() + AGAIN_SECONDS
            return None
        return words_of(found[0]) if found else None


def words_of(workload: Mapping[str, Any]) -> Trouble | None:
    """Return why a Workload has no quota: what took it away, and what is in the way of getting it (back)."""
    conditions = {c["type"]: c for c in (workload.get("status") or {}).get("conditions") or ()}
    reserved, evicted = conditions.get("QuotaReserved") or {}, conditions.get("Evicted") or {}
    if reserved.get("status") == "True":
        return None
    put_back = evicted if evicted.get("status") == "True" else {}
    said = [c["message"].rstrip(". ") for c in (put_back, reserved) if c.get("message")]
    reason = put_back.get("reason") or reserved.get("reason") or ""
    return Trouble(reason=reason, message=". ".join(dict.fromkeys(said))) if reason and said else None
