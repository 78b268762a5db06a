"""What happens to the store when a dataset is deleted.

With `deletionPolicy: Retain` nothing happens: there is no finalizer, the resource is deleted at once, and Kubernetes
deletes its children by their owner references. With `Delete` our finalizer keeps the resource until a Job has deleted
its objects. Jobs that still run are stopped first, because nothing may write while the clean-up deletes.

The clean-up has a time limit. It counts from the begin of the clean-up, not from the deletion, because the operator may
not have been running. After it, or as soon as nothing can be created because the namespace is deleted too, the
status and an Event report what is left and where, and the finalizer is removed. Before that, an edit or a retry begins
a failed clean-up again, and `deletionPolicy: Retain` removes the finalizer at once.
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
from diffugen_operator.observed.situation import Situation
from diffugen_operator.policy import runs
from diffugen_operator.policy.actions import Decision, SetFinalizer
from diffugen_operator.policy.pod_steps import Done, InProgress, SinglePodStep, step_state, with_work_order
from diffugen_operator.status.conditions import READY, Kind, Phase, sentence
from diffugen_operator.status.rendering import is_halted, presented

SHOWN = "deleting"
"""The clean-up's name in the status summary."""

DELETE = SinglePodStep(
    step=Step.DELETE,
    shown=SHOWN,
    working=reasons.CLEANING_UP,
    message="The dataset's objects in the store are being deleted; then the resource is deleted.",
    failed=reasons.CLEAN_UP_FAILED,
    manifest=jobs.delete_job,
    answers=lambda outcome, _: outcome.ok,
    work_order=jobs.clean_up_work_order,
)

_OVER = (reasons.CLEANED_UP, reasons.CLEAN_UP_ABANDONED)


def change_of_finalizer(dataset: Dataset) -> SetFinalizer | None:
    """Return how our finalizer has to change for spec.deletionPolicy; None if it is right."""
    if isinstance(dataset.wanted, InvalidSpec):  # Without a valid spec there is no policy: no change.
        return None
    wanted = dataset.wanted.spec.deletion_policy == "Delete"
    return None if wanted == dataset.has_our_finalizer else SetFinalizer(present=wanted)


def on_deletion(situation: Situation) -> Decision:
    """Return what to do about a dataset that is being deleted."""
    dataset, now = situation.dataset, situation.now
    status, limit = dataset.status, situation.settings.clean_up_timeout
    if not dataset.has_our_finalizer:  # Kubernetes adds no finalizer after the deletion.
        return Decision(status=status)
    if change_of_finalizer(dataset) is not None or (_is_over(status) and not dataset.restored):
        return Decision(status=status, actions=[SetFinalizer(present=False)])
    started = None if dataset.restored else read_time(status.clean_up_start_time)
    if started is None:  # Or the value is not a time: somebody else wrote it.
        return _begin(situation, "The dataset was deleted, and spec.deletionPolicy is Delete.")
    spec = _for_clean_up(dataset.wanted.spec) if isinstance(dataset.wanted, Wanted) else None
    if (why := runs.why_begin_again(situation, spec)) is not None:
        return _begin(situation, why)
    due = started + timedelta(seconds=limit)
    if now >= due:
        return abandoned(situation, f"It did not end within {limit:.0f} s.")
    decision = _continue(situation, due)
    looks = [look for look in (decision.reconcile_after, (due - now).total_seconds()) if look is not None]
    return replace(decision, reconcile_after=min(looks))


def abandoned(situation: Situation, why: str) -> Decision:
    """Return the decision that gives up the clean-up; the next reconcile removes the finalizer."""
    dataset = situation.dataset
    ready = next((c for c in dataset.status.conditions if c.type == READY and c.reason != reasons.CLEANING_UP), None)
    last = f" Last: {sentence(ready.message)}" if ready is not None else ""
    message = (
        f"The clean-up of the store was given up, and the resource is deleted. {sentence(why)} What is left in "
        f"{_place(dataset)} stays there.{last}"
    )
    phase = Phase.stalled(SHOWN, reasons.CLEAN_UP_ABANDONED, message)
    return Decision(status=presented(dataset, dataset.status, phase, now=situation.now), reconcile_after=0)


def _is_over(status: LabeledDatasetStatus) -> bool:
    return any(c.type == READY and c.reason in _OVER for c in status.conditions)


def _begin(situation: Situation, why: str) -> Decision:
    """Begin the clean-up as a separate run; as for any run, its entry is written before anything is created."""
    former, wanted = situation.dataset.status, situation.dataset.wanted
    revision, store = (wanted.revision, wanted.store) if isinstance(wanted, Wanted) else (former.revision, former.store)
    started = {"clean_up_start_time": write_time(situation.now)}
    ledger = runs.new_ledger(situation, revision, store).model_copy(update=started)
    phase = Phase.working(SHOWN, reasons.CLEANING_UP, why)
    return Decision(status=presented(situation.dataset, ledger, phase, now=situation.now), reconcile_after=0)


def _continue(situation: Situation, due: datetime) -> Decision:
    dataset, now = situation.dataset, situation.now
    wanted, status = dataset.wanted, dataset.status
    strays = runs.delete_strays(situation)
    if is_halted(status):
        return Decision(status=status, actions=strays)
    if isinstance(wanted, InvalidSpec):
        phase = _with_remedy(Phase.stalled(SHOWN, wanted.reason, wanted.message), due)
        return Decision(status=presented(dataset, status, phase, now=now), actions=strays)
    if (wait := runs.still_stopping(situation)) is not None:
        message = "The pods of the dataset's run finish their batch and stop; then its objects are deleted."
        phase = Phase.working(SHOWN, reasons.STOPPING, message)
        status = presented(dataset, status, phase, now=now)
        return Decision(status=status, actions=strays, reconcile_after=wait.total_seconds())

    run = RunPlan(key=runs.run_key(dataset), spec=_for_clean_up(wanted.spec), settings=situation.settings)
    step = step_state(DELETE, run, situation)
    if isinstance(step, InProgress):
        status = presented(dataset, status, _with_remedy(step.phase, due), now=now)
        actions = with_work_order(step.actions, step.phase, jobs.clean_up_work_order, run)
        return Decision(status=status, actions=[*strays, *actions])
    # If the Job is complete and its pod is gone, the result is lost, but the objects are deleted.
    result = f" ({step.outcome.message})" if isinstance(step, Done) else ""
    phase = Phase.working(SHOWN, reasons.CLEANED_UP, f"The dataset's objects in {_place(dataset)} are deleted{result}.")
    return Decision(status=presented(dataset, status, phase, now=now), actions=strays, reconcile_after=0)


def _with_remedy(phase: Phase, due: datetime) -> Phase:
    """Return the phase of a failed clean-up with a message that explains how to retry it, and how it ends."""
    if phase.kind is not Kind.STALLED:
        return phase
    message = (
        f"The store is not cleaned up: {sentence(phase.message)} An edit or a retry begins it again; "
        f"spec.deletionPolicy: Retain deletes the resource at once, and at {write_time(due)} it is deleted anyway."
    )
    return replace(phase, message=message)


def _for_clean_up(spec: LabeledDatasetSpec) -> LabeledDatasetSpec:
    """Return the spec for the clean-up: without the deadline of the work.

    It waits in the dataset's queue: where Kueue holds Jobs without a queue, it would never run without one. If the
    queue is gone, the clean-up's own time limit ends the wait.
    """
    return spec.model_copy(update={"run": spec.run.model_copy(update={"active_deadline_seconds": None})})


def _place(dataset: Dataset) -> str:
    s3 = dataset.wanted.spec.output.s3 if isinstance(dataset.wanted, Wanted) else None
    if s3 is None:
        return "the store"
    parts = [s3.bucket, s3.prefix.strip("/"), dataset.namespace, dataset.name]
    return f"s3://{'/'.join(part for part in parts if part)}"
