"""What becomes of the store when a dataset is deleted.

With `deletionPolicy: Retain` nothing does: there is no finalizer, the resource goes at once, and Kubernetes collects
its children by their owner references. With `Delete` our finalizer keeps the resource until a Job has deleted its
objects: the Jobs that still run are stopped first, as nothing may be written behind the clean-up's back.

The clean-up is bounded in time, from the moment when it began (not from the deletion: the operator may have been
down). Then, or as soon as nothing can be created any more because the namespace goes too, the status and an Event
say what is left where, and the resource is let go. Until then, an edit or a retry begins what failed once more, and
`deletionPolicy: Retain` lets go at once.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from diffugen_api.contract import Step
from diffugen_api.v1alpha1 import LabeledDatasetSpec, LabeledDatasetStatus
from diffugen_operator import reasons
from diffugen_operator.manifests import jobs
from diffugen_operator.manifests.jobs import RunPlan
from diffugen_operator.observed.base import read_time, write_time
from diffugen_operator.observed.dataset import Dataset, InvalidSpec, Wanted
from diffugen_operator.observed.situation import Observed
from diffugen_operator.policy import runs
from diffugen_operator.policy.actions import Decision, SetFinalizer
from diffugen_operator.policy.pod_steps import Done, InProgress, SinglePodStep, look_at
from diffugen_operator.settings import Settings
from diffugen_operator.status.conditions import READY, Kind, Phase, sentence
from diffugen_operator.status.rendering import is_halted, presented

SHOWN = "deleting"
"""The clean-up in the summary."""

DELETE = SinglePodStep(
    step=Step.DELETE,
    shown=SHOWN,
    working=reasons.CLEANING_UP,
    message="The dataset's objects in the store are being deleted; then the resource goes.",
    failed=reasons.CLEAN_UP_FAILED,
    manifest=jobs.delete_job,
    answers=lambda outcome: outcome.ok,
    order=jobs.clean_up_order,
)

_OVER = (reasons.CLEANED_UP, reasons.CLEAN_UP_ABANDONED)


def change_of_finalizer(dataset: Dataset) -> SetFinalizer | None:
    """Return how our finalizer has to change for the policy, or None where it is as it should be."""
    if isinstance(dataset.wanted, InvalidSpec):  # No spec, no policy: it stays as it was.
        return None
    wanted = dataset.wanted.spec.deletion_policy == "Delete"
    return None if wanted == dataset.has_our_finalizer else SetFinalizer(present=wanted)


def on_deletion(dataset: Dataset, observed: Observed, now: datetime, settings: Settings) -> Decision:
    """Return what to do about a dataset that is being deleted."""
    status = dataset.status
    if not dataset.has_our_finalizer:  # A finalizer cannot be added any more.
        return Decision(status=status)
    if change_of_finalizer(dataset) is not None or _is_over(status):
        return Decision(status=status, actions=[SetFinalizer(present=False)])
    if status.clean_up_start_time is None:
        return _begin(dataset, "The dataset was deleted, and spec.deletionPolicy is Delete.", now)
    spec = _for_clean_up(dataset.wanted.spec) if isinstance(dataset.wanted, Wanted) else None
    if (why := runs.why_once_more(dataset, spec, observed, now)) is not None:
        return _begin(dataset, why, now)
    due = read_time(status.clean_up_start_time) + timedelta(seconds=settings.clean_up_timeout)
    if now >= due:
        return abandoned(dataset, f"It did not end within {settings.clean_up_timeout:.0f} s.", now)
    decision = _go_on(dataset, observed, now, settings, due)
    looks = [look for look in (decision.reconcile_after, (due - now).total_seconds()) if look is not None]
    return replace(decision, reconcile_after=min(looks))


def abandoned(dataset: Dataset, why: str, now: datetime) -> Decision:
    """Return the decision that gives the clean-up up: it is said, and with the next look the resource is let go."""
    ready = next((c for c in dataset.status.conditions if c.type == READY and c.reason != reasons.CLEANING_UP), None)
    last = f" Last: {sentence(ready.message)}" if ready is not None else ""
    message = (
        f"The clean-up of the store was given up, and the resource is let go. {sentence(why)} What is left in "
        f"{_place(dataset)} stays there.{last}"
    )
    phase = Phase.stalled(SHOWN, reasons.CLEAN_UP_ABANDONED, message)
    return Decision(status=presented(dataset, dataset.status, phase, now=now), reconcile_after=0)


def _is_over(status: LabeledDatasetStatus) -> bool:
    return any(c.type == READY and c.reason in _OVER for c in status.conditions)


def _begin(dataset: Dataset, why: str, now: datetime) -> Decision:
    """Begin the clean-up as a run of its own; like any run's, its entry is written before anything is created."""
    former, wanted = dataset.status, dataset.wanted
    revision, store = (wanted.revision, wanted.store) if isinstance(wanted, Wanted) else (former.revision, former.store)
    ledger = former.model_copy(
        update={
            "revision": revision,
            "store": store,
            "attempt": former.attempt + 1,
            "planned": False,
            "stages": [],
            "clean_up_start_time": write_time(now),
            "last_handled_retry_at": dataset.retry_at or former.last_handled_retry_at,
        }
    )
    phase = Phase.working(SHOWN, reasons.CLEANING_UP, why)
    return Decision(status=presented(dataset, ledger, phase, now=now), reconcile_after=0)


def _go_on(dataset: Dataset, observed: Observed, now: datetime, settings: Settings, due: datetime) -> Decision:
    wanted, status = dataset.wanted, dataset.status
    strays = runs.delete_strays(dataset, observed)
    if is_halted(status):
        return Decision(status=status, actions=strays)
    if isinstance(wanted, InvalidSpec):
        phase = _stuck(Phase.stalled(SHOWN, wanted.reason, wanted.message), due)
        return Decision(status=presented(dataset, status, phase, now=now), actions=strays)
    if (wait := runs.still_stopping(dataset, observed, settings, now)) is not None:
        message = "The pods of the dataset's run finish what they are at and stop; then its objects are deleted."
        phase = Phase.working(SHOWN, reasons.STOPPING, message)
        status = presented(dataset, status, phase, now=now)
        return Decision(status=status, actions=strays, reconcile_after=wait.total_seconds())

    run = RunPlan(key=runs.run_key(dataset), spec=_for_clean_up(wanted.spec), settings=settings)
    step = look_at(DELETE, run, observed, now)
    if isinstance(step, InProgress):
        status = presented(dataset, status, _stuck(step.phase, due), now=now)
        return Decision(status=status, actions=[*strays, *step.actions])
    # Of a Job that completed and whose pod is gone, the word is lost: what it did is done all the same.
    said = f" ({step.outcome.message})" if isinstance(step, Done) else ""
    phase = Phase.working(SHOWN, reasons.CLEANED_UP, f"The dataset's objects in {_place(dataset)} are deleted{said}.")
    return Decision(status=presented(dataset, status, phase, now=now), actions=strays, reconcile_after=0)


def _stuck(phase: Phase, due: datetime) -> Phase:
    """Return a phase that says how a clean-up that failed can go on, or end."""
    if phase.kind is not Kind.STALLED:
        return phase
    message = (
        f"The store is not cleaned up: {sentence(phase.message)} After an edit or a retry it is tried once more; "
        f"spec.deletionPolicy: Retain lets the resource go at once, and at {write_time(due)} it is let go anyway."
    )
    return replace(phase, message=message)


def _for_clean_up(spec: LabeledDatasetSpec) -> LabeledDatasetSpec:
    """Return the spec for the clean-up: neither in a queue that may be gone, nor under the deadline of the work."""
    run = spec.run.model_copy(update={"queue_name": None, "active_deadline_seconds": None})
    return spec.model_copy(update={"run": run})


def _place(dataset: Dataset) -> str:
    s3 = dataset.wanted.spec.output.s3 if isinstance(dataset.wanted, Wanted) else None
    if s3 is None:
        return "the store"
    parts = [s3.bucket, s3.prefix.strip("/"), dataset.namespace, dataset.name]
    return f"s3://{'/'.join(part for part in parts if part)}"
