"""What was observed, as values: the dataset, its Jobs, their pods.

Readers of raw API objects (nested dictionaries) end here; all that decides works on these. A field that an
object lacks reads as its zero value, as Kubernetes leaves zeros out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import ValidationError

from diffugen_api.contract import (
    ANNOTATION_SETUP,
    FINALIZER,
    LABEL_ATTEMPT,
    LABEL_QUEUE,
    LABEL_STAGE,
    LABEL_STEP,
    RETRY_ANNOTATION,
    Outcome,
    Step,
)
from diffugen_api.plan import revision_of, store_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec, LabeledDatasetStatus
from diffugen_operator import reasons
from diffugen_operator.manifests.names import CONTAINER
from diffugen_operator.observed.progress import Pace, Shard

Raw = Mapping[str, Any]
"""An API object as the API server sends it."""

RETRY_LENGTH = 64
"""status.lastHandledRetryAt is bounded by this; longer annotations are compared by what fits."""

_IMAGE_TROUBLE = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})
_CONTAINER_TROUBLE = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_MEND_CONTAINER = "Create or mend what it names, and the pod starts by itself; or name another in the spec."


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a spec asks for."""

    spec: LabeledDatasetSpec
    revision: str
    store: str


@dataclass(frozen=True, slots=True)
class Unfit:
    """A spec with which nothing can be begun, and why."""

    reason: str
    message: str


def read_spec(raw: Raw) -> Wanted | Unfit:
    """Read a dataset's spec; say what is wrong with it where it cannot be worked on."""
    try:
        spec = LabeledDatasetSpec.model_validate(raw.get("spec") or {})
    except ValidationError as error:
        return Unfit(reasons.INVALID_SPEC, _first_fault(error))
    if spec.output.s3 is None:
        message = "spec.output.s3 is not set: name the endpoint and the bucket that the dataset goes to."
        return Unfit(reasons.STORE_NOT_SET, message)
    return Wanted(spec, revision_of(spec), store_of(spec))


def _first_fault(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in faults[0]["loc"])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"spec{path}: {faults[0]['msg']}{more}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A LabeledDataset."""

    namespace: str
    name: str
    uid: str
    generation: int
    version: str
    """Its resourceVersion."""
    deleting: bool
    finalizers: tuple[str, ...]
    retry_at: str
    """The retry annotation; empty where there is none."""
    wanted: Wanted | Unfit
    status: LabeledDatasetStatus

    @property
    def guarded(self) -> bool:
        """Whether our finalizer keeps it."""
        return FINALIZER in self.finalizers

    @classmethod
    def read(cls, raw: Raw, wanted: Wanted | Unfit) -> Self:
        """Read the API object; `wanted` is its spec, read before."""
        metadata = raw["metadata"]
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            version=metadata["resourceVersion"],
            deleting="deletionTimestamp" in metadata,
            finalizers=tuple(metadata.get("finalizers") or ()),
            retry_at=(metadata.get("annotations") or {}).get(RETRY_ANNOTATION, "")[:RETRY_LENGTH],
            wanted=wanted,
            status=LabeledDatasetStatus.model_validate(raw.get("status") or {}),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why something does not go on, in somebody's own words."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A child Job."""

    name: str
    uid: str
    step: Step | None
    stage: str
    attempt: int
    created_at: datetime | None
    deleting_since: datetime | None
    queue: str
    """The Kueue queue in which it was created; Kueue alone suspends, resumes and resizes it then."""
    setup: str
    """What it has of the spec, as a hash (`jobs.setup_of`); empty where its creator did not say."""
    suspended: bool
    parallelism: int
    failed_pods: int
    completed_indexes: str
    failed_indexes: str
    complete: bool
    failing: bool
    """Whether it is about to fail: its pods are being stopped, and none is tried again."""
    failure: Trouble | None
    """The Job's Failed condition."""
    completion_time: str | None

    @property
    def finished(self) -> bool:
        """Whether nothing will run any more."""
        return self.complete or self.failure is not None

    @classmethod
    def read(cls, raw: Raw) -> Self:
        """Read the API object."""
        metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
        labels = metadata.get("labels") or {}
        step = labels.get(LABEL_STEP, "")
        attempt = labels.get(LABEL_ATTEMPT, "")
        created_at, deleted_at = metadata.get("creationTimestamp"), metadata.get("deletionTimestamp")
        failed = _condition(status, "Failed")
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            step=Step(step) if step in set(Step) else None,
            stage=labels.get(LABEL_STAGE, ""),
            attempt=int(attempt) if attempt.isdigit() else 0,
            created_at=read_time(created_at) if created_at else None,
            deleting_since=read_time(deleted_at) if deleted_at else None,
            queue=labels.get(LABEL_QUEUE, ""),
            setup=(metadata.get("annotations") or {}).get(ANNOTATION_SETUP, ""),
            suspended=bool(spec.get("suspend")),
            parallelism=1 if spec.get("parallelism") is None else spec["parallelism"],
            failed_pods=status.get("failed") or 0,
            completed_indexes=status.get("completedIndexes") or "",
            failed_indexes=status.get("failedIndexes") or "",
            complete=_condition(status, "Complete") is not None,
            failing=_condition(status, "FailureTarget") is not None,
            failure=Trouble(reason=failed.get("reason", ""), message=failed.get("message", "")) if failed else None,
            completion_time=status.get("completionTime"),
        )


def _condition(status: Raw, kind: str) -> Raw | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == kind and condition.get("status") == "True":
            found: Raw = condition
            return found
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a pod's generator ended."""

    exit_code: int
    reason: str
    """The kubelet's word for it: Completed, Error, OOMKilled, …"""
    outcome: Outcome | None
    said: str
    """What the kubelet, or a program that is not ours, says of it."""
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
    """The scheduler's words; empty where it has found a node, or is still looking."""
    waiting: Trouble | None
    starting_since: datetime | None
    """Since when it has had a node and yet no container of ours; None where that is not what it is at."""
    ended: Ended | None
    evicted: str
    """The kubelet's words where it put the pod out, or would not have it."""
    silent_node: str
    """The pod's node, where that does not answer, so that nobody knows how the pod is."""

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
            silent_node=raw.get("spec", {}).get("nodeName", "") if _node_is_silent(status) else "",
        )


def _evicted(status: Raw, state: Raw) -> str:
    # A container that could still be ended first has an end of its own then, which tells nothing of the cause.
    if status.get("phase") != "Failed" or not (status.get("reason") or "terminated" not in state):
        return ""
    return str(status.get("message") or status.get("reason") or "")


def _node_is_silent(status: Raw) -> bool:
    """Whether the node controller has marked the pod, as it does with all of a node that is NotReady.

    It sets Ready to False and nothing else, without a reason; a kubelet that does so gives one, or sets
    ContainersReady too.
    """
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    ready, containers = conditions.get("Ready", {}), conditions.get("ContainersReady", {})
    marked = ready.get("status") == "False" and not ready.get("reason") and containers.get("status") == "True"
    return status.get("phase") == "Running" and marked


def _waiting(state: Raw, pod: str, image: str) -> Trouble | None:
    waiting = state.get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in _IMAGE_TROUBLE:
        # The kubelet alternates between two messages; ours stays, so that the status does too.
        message = f"The image {image!r} of pod {pod} cannot be pulled: check run.image and its registry."
        return Trouble(reason=reasons.IMAGE_PULL_FAILED, message=message)
    if reason in _CONTAINER_TROUBLE:
        said = (waiting.get("message", "") or reason).rstrip(". ")
        return Trouble(
            reason=reasons.CONTAINER_CONFIG_ERROR, message=f"Pod {pod} cannot start: {said}. {_MEND_CONTAINER}"
        )
    return None


def _starting_since(raw: Raw, scheduled: Raw, state: Raw) -> datetime | None:
    status = raw.get("status") or {}
    creating = (state.get("waiting") or {}).get("reason") == "ContainerCreating"
    # Init containers may work as long as they like: the generator then waits for PodInitializing.
    unheard = scheduled.get("status") == "True" and not state and not status.get("initContainerStatuses")
    if status.get("phase") != "Pending" or "deletionTimestamp" in raw["metadata"] or not (creating or unheard):
        return None
    since = status.get("startTime") or scheduled.get("lastTransitionTime")
    return read_time(since) if since else None


def _ended(state: Raw) -> Ended | None:
    terminated = state.get("terminated")
    if terminated is None:
        return None
    outcome = Outcome.loads(terminated.get("message"))
    return Ended(
        exit_code=terminated.get("exitCode", 0),
        reason=terminated.get("reason", ""),
        outcome=outcome,
        said="" if outcome is not None else (terminated.get("message") or "").strip(),
        finished_at=terminated.get("finishedAt") or "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What there is of one dataset in the cluster."""

    jobs: tuple[Job, ...] = ()
    pods: tuple[Pod, ...] = ()
    shards: Mapping[str, Shard] = field(default_factory=dict)
    """What running pods say of their shards, by pod."""
    pace: Pace = field(default_factory=Pace)
    queue_words: Mapping[str, Trouble] = field(default_factory=dict)
    """What Kueue says of the Jobs that wait in its queues, by Job, where it may be read."""

    def job(self, name: str) -> Job | None:
        """Return the Job of this name."""
        return next((job for job in self.jobs if job.name == name), None)

    def under_way(self, attempt: int) -> list[Job]:
        """Return an attempt's Jobs that are neither finished nor being deleted."""
        return [job for job in self.jobs if job.attempt == attempt and not job.finished and job.deleting_since is None]

    def pods_of(self, job: Job) -> list[Pod]:
        """Return a Job's pods."""
        return [pod for pod in self.pods if pod.job == job.name]


def read_time(text: str) -> datetime:
    """Read an API timestamp."""
    return datetime.fromisoformat(text).astimezone(UTC)


def write_time(moment: datetime) -> str:
    """Write a timestamp as the API has it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
