"""The pods of a dataset's Jobs as values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from diffugen_api.contract import Outcome
from diffugen_operator import reasons
from diffugen_operator.manifests.names import CONTAINER
from diffugen_operator.observed.base import Raw, Trouble, read_time
from diffugen_operator.observed.outcomes import read_outcome

_IMAGE_TROUBLE = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})
_CONTAINER_TROUBLE = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_PINNED = re.compile(r"[A-Za-z0-9.:/_-]+@sha256:[0-9a-f]{64}")
_FIX_CONTAINER = "Create or fix what it names and the pod starts by itself, or name another one in the spec."


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a pod's generator ended."""

    exit_code: int
    reason: str
    """The kubelet's reason: Completed, Error, OOMKilled, …"""
    outcome: Outcome | None
    message: str
    """The termination message, if it is not a DiffuGen result: of the kubelet or of another program."""
    finished_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod of a child Job."""

    name: str
    job: str
    index: str
    address: str
    running: bool
    image: str
    unschedulable: str
    """The scheduler's message; empty if it found a node, or has not decided yet."""
    waiting: Trouble | None
    starting_since: datetime | None
    """Since when it is scheduled without its first container; None if it is not in that state."""
    ended: Ended | None
    evicted: str
    """The kubelet's message if it evicted or rejected the pod."""
    still_running: tuple[str, ...]
    """Containers that run although the generator has ended; the pod does not end before them."""
    lingers_since: datetime | None
    """Since when: by the API server's record of the pod's last change, which was that end, else by the node's clock."""
    silent_node: str
    """The pod's node if that does not answer, so that the pod's state is unknown."""

    @classmethod
    def read(cls, raw: Raw) -> Self:
        """Read the API object."""
        metadata, status = raw["metadata"], raw.get("status") or {}
        labels = metadata.get("labels") or {}
        container: Raw = next((c for c in status.get("containerStatuses") or () if c["name"] == CONTAINER), {})
        state = container.get("state") or {}
        scheduled: Raw = next((c for c in status.get("conditions") or () if c["type"] == "PodScheduled"), {})
        phase = status.get("phase")
        return cls(
            name=metadata["name"],
            job=labels.get("batch.kubernetes.io/job-name") or labels.get("job-name", ""),
            index=labels.get("batch.kubernetes.io/job-completion-index", ""),
            address=status.get("podIP") or "",
            running=phase == "Running" and "running" in state and "deletionTimestamp" not in metadata,
            image=container.get("image", ""),
            unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
            waiting=_waiting(state, metadata["name"], container.get("image", "")),
            starting_since=_starting_since(raw, scheduled, state),
            ended=_ended(state),
            evicted=_evicted(status, state),
            still_running=_still_running(status, state),
            lingers_since=_lingers_since(status, state),
            silent_node=raw.get("spec", {}).get("nodeName", "") if _node_is_silent(status) else "",
        )


def _still_running(status: Raw, state: Raw) -> tuple[str, ...]:
    if status.get("phase") != "Running" or "terminated" not in state:
        return ()
    return tuple(c["name"] for c in status.get("containerStatuses") or () if "running" in (c.get("state") or {}))


def _lingers_since(status: Raw, state: Raw) -> datetime | None:
    if not _still_running(status, state):
        return None
    return read_time(status.get("changedAt")) or read_time(state["terminated"].get("finishedAt"))


def _evicted(status: Raw, state: Raw) -> str:
    # If the container was stopped first, it has a termination of its own that does not show the cause.
    if status.get("phase") != "Failed" or not (status.get("reason") or "terminated" not in state):
        return ""
    return str(status.get("message") or status.get("reason") or "")


def _node_is_silent(status: Raw) -> bool:
    """Whether the node controller has marked the pod, as it marks all pods of a node that is NotReady.

    It sets only Ready to False, without a reason. A kubelet gives a reason, or sets ContainersReady too.
    """
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    ready, containers = conditions.get("Ready", {}), conditions.get("ContainersReady", {})
    marked = ready.get("status") == "False" and not ready.get("reason") and containers.get("status") == "True"
    return status.get("phase") == "Running" and marked


def _waiting(state: Raw, pod: str, image: str) -> Trouble | None:
    waiting = state.get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in _IMAGE_TROUBLE:
        # The kubelet alternates between two messages. Ours is constant, so that the status does not change.
        message = f"The image {image!r} of pod {pod} cannot be pulled: check run.image and its registry."
        if (other := _pinned_image(waiting.get("message", ""))) not in ("", image):
            message = (
                f"The image {other!r} of a model cannot be pulled for pod {pod}: check its oci:// address, its "
                "registry, and imagePullSecrets of the service account or of run.podTemplate."
            )
        return Trouble(reason=reasons.IMAGE_PULL_FAILED, message=message)
    if reason in _CONTAINER_TROUBLE:
        cause = (waiting.get("message", "") or reason).rstrip(". ")
        return Trouble(
            reason=reasons.CONTAINER_CONFIG_ERROR, message=f"Pod {pod} cannot start: {cause}. {_FIX_CONTAINER}"
        )
    return None


def _pinned_image(message: str) -> str:
    """Return the image that a kubelet's message names by its digest, as those of models are; empty if none."""
    found = _PINNED.search(message)
    return "" if found is None else found[0]


def _starting_since(raw: Raw, scheduled: Raw, state: Raw) -> datetime | None:
    status = raw.get("status") or {}
    creating = (state.get("waiting") or {}).get("reason") == "ContainerCreating"
    # Init containers have no time limit: the generator waits with PodInitializing meanwhile.
    unheard = scheduled.get("status") == "True" and not state and not status.get("initContainerStatuses")
    if status.get("phase") != "Pending" or "deletionTimestamp" in raw["metadata"] or not (creating or unheard):
        return None
    # The API server itself sets this time when the pod is bound; status.startTime is by the node's clock.
    since = scheduled.get("lastTransitionTime") or status.get("startTime")
    return read_time(since)


def _ended(state: Raw) -> Ended | None:
    terminated = state.get("terminated")
    if terminated is None:
        return None
    outcome = read_outcome(terminated.get("message"))
    return Ended(
        exit_code=terminated.get("exitCode", 0),
        reason=terminated.get("reason", ""),
        outcome=outcome,
        message="" if outcome is not None else (terminated.get("message") or "").strip(),
        finished_at=terminated.get("finishedAt") or "",
    )
