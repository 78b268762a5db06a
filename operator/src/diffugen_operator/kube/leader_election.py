"""Which of several operator processes works: the one that holds the Lease.

The leader renews the Lease. Another process takes it after it saw no renewal for the whole lease duration, measured by
its own clock: no two clocks are compared. The leader gives up earlier, at the renew deadline, counted from before it
sent its last renewal. After that it writes nothing: every write asks `left` first and gets no more time than that. So
there are never two writers, not even when a process was frozen and continues.

    standby ──(the Lease is free, or was not renewed)──> leader ──(deadline)──> the process ends
                                                           └────(SIGTERM)─────> released: another begins at once
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from diffugen_operator.kube.api import REQUEST_ERRORS, ApiError
from diffugen_operator.kube.credentials import ServiceAccount
from diffugen_operator.kube.work_queue import Clock
from diffugen_operator.settings import Settings

logger = logging.getLogger(__name__)

_MOST_TRANSITIONS = 2**31
_LONGEST_SECONDS = 3600
"""No longer is a Lease without a renewal respected: somebody else may have written its duration."""

Lease = dict[str, Any]
"""A coordination.k8s.io/v1 Lease, as the API server returns it."""


class LeaseLostError(Exception):
    """The Lease could not be renewed in time, or another process has taken it."""


class Leases(Protocol):
    """Requests for the Lease."""

    async def get_lease(self, namespace: str, name: str, *, within: float) -> Lease | None:
        """Return the Lease, or None if it does not exist."""

    async def create_lease(self, manifest: Lease, *, within: float) -> Lease:
        """Create the Lease."""

    async def replace_lease(self, manifest: Lease, *, within: float) -> Lease:
        """Replace the Lease, if it still has the manifest's resourceVersion."""


class Election:
    """The part of one process in the election."""

    def __init__(
        self,
        *,
        leases: Leases,
        settings: Settings,
        identity: str,
        clock: Clock,
        now: Callable[[], datetime],
        owner: Callable[[], ServiceAccount | None] = lambda: None,
    ) -> None:
        """`owner` returns the service account that owns the Lease: if it is deleted, Kubernetes deletes the Lease."""
        self._leases, self._settings, self._identity = leases, settings, identity
        self._clock, self._now, self._owner = clock, now, owner
        self._held: Lease | None = None
        self._until = float("-inf")
        self._seen: Mapping[str, Any] | None = None
        self._seen_at = float("-inf")

    @property
    def leading(self) -> bool:
        """Whether this process may write now."""
        return self.left() > 0

    @property
    def stands_by(self) -> bool:
        """Whether another process leads and this one would take over."""
        return not self.leading and bool((self._seen or {}).get("holderIdentity"))

    def left(self) -> float:
        """Return for how many seconds this process may write without another renewal."""
        return self._until - self._clock()

    async def win(self) -> None:
        """Wait until this process holds the Lease."""
        logged: str | None = None
        while not await self._tried():
            holder = (self._seen or {}).get("holderIdentity", "")
            if holder != logged:
                logger.info("Standing by: %s leads.", holder or "nobody")
                logged = holder
            await asyncio.sleep(self._settings.lease_retry)
        logger.info("Leading as %s.", self._identity)

    async def hold(self) -> None:
        """Renew the Lease until the task is canceled. Raises LeaseLostError if that fails until the deadline."""
        while True:
            await asyncio.sleep(min(self._settings.lease_retry, max(0.0, self.left())))
            if not self.leading:
                raise LeaseLostError(f"not renewed for {self._settings.lease_renew_deadline:g} s")
            try:
                await self._renew()
            except REQUEST_ERRORS as error:
                logger.warning("The Lease could not be renewed: %r; %.1f s are left.", error, self.left())

    async def release(self) -> None:
        """Release the Lease so that another process need not wait; a process that has lost it does nothing."""
        if self._held is None or not self.leading:
            return
        # An empty holder means that the Lease is free; the API needs a duration of at least one second.
        lease = self._lease(self._held, holder="", duration=1)
        within, self._until = self.left(), float("-inf")
        try:
            await self._leases.replace_lease(lease, within=within)
        except REQUEST_ERRORS as error:
            logger.warning("The Lease could not be released: %r", error)

    async def _tried(self) -> bool:
        """Try to take the Lease; returns whether this process leads."""
        try:
            return await self._try()
        except ApiError as error:
            if error.code != 409:  # On 409, another process was faster.
                logger.warning("The Lease could not be taken: %s", error)
        except REQUEST_ERRORS as error:
            logger.warning("The Lease could not be taken: %r", error)
        return False

    async def _try(self) -> bool:
        began = self._clock()
        within = self._settings.lease_renew_deadline
        there = await self._get(within)
        if there is None:
            metadata = {"name": self._settings.lease_name, "namespace": self._settings.lease_namespace}
            self._keep(await self._leases.create_lease(self._lease({"metadata": metadata}), within=within), began)
            return self.leading
        if not self._is_free(there.get("spec") or {}):
            return False
        self._keep(await self._leases.replace_lease(self._lease(there), within=within), began)
        return self.leading

    def _is_free(self, spec: Mapping[str, Any]) -> bool:
        """Whether nobody holds it, or its holder did not renew it within its duration."""
        if spec != self._seen:
            self._seen, self._seen_at = spec, self._clock()
        if spec.get("holderIdentity") in (None, "", self._identity):
            return True
        duration = spec.get("leaseDurationSeconds") or self._settings.lease_duration
        longest = max(_LONGEST_SECONDS, self._settings.lease_duration)
        return self._clock() >= self._seen_at + min(duration, longest)

    async def _renew(self) -> None:
        began = self._clock()
        held = self._held or {}
        try:
            # At most half the time, so that a request without an answer leaves time for another try.
            within = min(self.left(), self._settings.lease_renew_deadline / 2)
            self._keep(await self._leases.replace_lease(self._lease(held), within=within), began)
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            # Somebody edited its labels, or an answer to us was lost, or another process has taken it.
            there = await self._get(max(0.0, self.left()))
            if there is None or (there.get("spec") or {}).get("holderIdentity") != self._identity:
                self._until = float("-inf")
                raise LeaseLostError("another process has taken it, or it was deleted") from error
            self._held = there

    async def _get(self, within: float) -> Lease | None:
        settings = self._settings
        return await self._leases.get_lease(settings.lease_namespace, settings.lease_name, within=within)

    def _keep(self, lease: Lease, began: float) -> None:
        self._held, self._until = lease, began + self._settings.lease_renew_deadline

    def _lease(self, there: Mapping[str, Any], *, holder: str | None = None, duration: int | None = None) -> Lease:
        """Return the Lease held by this process, or by `holder`."""
        former = there.get("spec") or {}
        holder = self._identity if holder is None else holder
        # MicroTime: six digits, always.
        moment = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        changed = former.get("holderIdentity") != holder
        taken = 1 if changed and holder and former else 0
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": self._owned(there["metadata"]),
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": duration or self._settings.lease_duration,
                "acquireTime": moment if changed else former.get("acquireTime", moment),
                "renewTime": moment,
                # Somebody else may have written the largest number, whose successor the API server refuses.
                "leaseTransitions": ((former.get("leaseTransitions") or 0) + taken) % _MOST_TRANSITIONS,
            },
        }

    def _owned(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return the Lease's metadata with its owner, in place of a former service account of the operator."""
        account = self._owner()
        if account is None or account.namespace != self._settings.lease_namespace:
            return dict(metadata)
        owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": account.name, "uid": account.uid}
        others = [each for each in metadata.get("ownerReferences") or [] if each.get("kind") != owner["kind"]]
        return {**metadata, "ownerReferences": [*others, owner]}
