"""When a run begins, and what becomes of the one before it.

A run is one attempt of one revision, going to one store. The status is its ledger, and it is written before
anything is created: attempts only grow, so no two runs ever share a Job's name, not even when a spec is
edited there and back again.

A run begins when another content is wanted or another store. It begins once more, on what the store holds by
then,

- when it is stalled, and a retry is asked for or the spec is edited at all: the edit may be the mend;
- when Jobs of it are held up or suspended that would be made otherwise from the spec by now, as Jobs cannot be
  edited; those that get on are left to it;
- when it is held up by more than a line for a node, and a retry is asked for.

While spec.suspend holds it, it waits with that.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum

from diffugen_api.v1alpha1 import LabeledDatasetSpec, LabeledDatasetStatus, SampleCounts, StageStatus
from diffugen_operator import reasons
from diffugen_operator.manifests import jobs, names
from diffugen_operator.manifests.names import RunKey
from diffugen_operator.observed.base import write_time
from diffugen_operator.observed.dataset import Dataset, Wanted
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.situation import Observed
from diffugen_operator.policy.actions import Action, Decision, DeleteJob, DeleteWorkOrder
from diffugen_operator.policy.pod_troubles import pod_trouble
from diffugen_operator.settings import Settings
from diffugen_operator.status.conditions import READY, STALLED, Phase, find, sentence
from diffugen_operator.status.rendering import is_stalled, presented

_STOPPING_SLACK = timedelta(seconds=60)
"""How much longer than their grace period the pods of a former run are waited for."""


MOST_REPLANS = 3
"""How often a run plans anew by itself when the store lacks, in the end, what was planned or drawn."""


_OUTDATED = "The spec was edited, and Jobs that wait were made from the former one."
_ASKED = "A retry was asked for."


class Restart(Enum):
    """Why a run starts over by itself."""

    RESULT_LOST = "The result of a finished step was lost with its pod; planning again."
    WORK_LOST = "Something vanished from the store between plan and publication; planning again."


def run_key(dataset: Dataset) -> RunKey:
    """Return the run that the dataset's status speaks of."""
    status = dataset.status
    return RunKey(
        uid=dataset.uid,
        namespace=dataset.namespace,
        name=dataset.name,
        revision=status.revision,
        store=status.store,
        attempt=status.attempt,
    )


def retry_asked(dataset: Dataset) -> bool:
    """Whether the retry annotation has a value that was not handled yet."""
    return bool(dataset.retry_at) and dataset.retry_at != dataset.status.last_handled_retry_at


def why_begin(dataset: Dataset, wanted: Wanted, observed: Observed, now: datetime) -> str | None:
    """Return why a new run has to begin, as a sentence; None where the present one goes on."""
    status = dataset.status
    if status.attempt == 0:
        return "The dataset was accepted."
    if status.revision != wanted.revision:
        return f"The spec changed: revision {wanted.revision} follows {status.revision}."
    if status.store != wanted.store:
        return "The dataset goes to another store."
    if wanted.spec.suspend and not _was_unfit(status):  # What is held is tried once more when it is let go.
        return None
    return why_once_more(dataset, wanted.spec, observed, now)


def _was_unfit(status: LabeledDatasetStatus) -> bool:
    condition = find(status.conditions, STALLED)
    return condition is not None and condition.reason in (reasons.INVALID_SPEC, reasons.STORE_NOT_SET)


def why_once_more(dataset: Dataset, spec: LabeledDatasetSpec | None, observed: Observed, now: datetime) -> str | None:
    """Return why the same run is to be tried once more, as a sentence; None where it goes on.

    `spec` is what its next Job would be made from; None where nothing can be.
    """
    edited, asked = dataset.generation != dataset.status.observed_generation, retry_asked(dataset)
    if is_stalled(dataset.status):
        if edited:
            return "The spec was edited while the run was stalled."
        return _ASKED if asked else None
    under_way = observed.under_way(dataset.status.attempt)
    held = [(job, phase) for job in under_way if (phase := pod_trouble("", job, observed, now)) is not None]
    idle = [job for job, _ in held] + [job for job in under_way if job.suspended]
    if spec is not None and any(job.setup not in ("", jobs.setup_of(spec)) for job in idle):
        return _OUTDATED
    if edited and any(not job.setup for job, _ in held):  # Of a former operator: any edit may be the mend.
        return _OUTDATED
    # Pods in line for a node lose their place by a retry and gain nothing.
    stuck = [job for job, phase in held if phase.queued is None]
    return _ASKED if asked and stuck else None


def begin(dataset: Dataset, wanted: Wanted, why: str, now: datetime, *, replans: int = 0) -> Decision:
    """Return the decision that begins a run: nothing but its entry in the ledger.

    The former run's order goes with it, as its name can no longer be told afterwards. `replans` counts how often it was
    begun by itself, because what was planned was not there in the end. Where the same is wanted once more, what is done
    stays told until the plan says what the store holds.
    """
    former = dataset.status
    ledger = former.model_copy(
        update={
            "revision": wanted.revision,
            "store": wanted.store,
            "attempt": former.attempt + 1,
            "planned": False,
            "replans": replans,
            "stages": _until_planned(former) if _same_content(former, wanted) else [],
            "last_progress_time": write_time(now),
            "last_handled_retry_at": dataset.retry_at or former.last_handled_retry_at,
        }
    )
    phase = Phase.working("planning", reasons.ACCEPTED, why)
    actions: list[Action] = [DeleteWorkOrder(names.order_name(run_key(dataset)))] if former.attempt else []
    return Decision(status=presented(dataset, ledger, phase, now=now), actions=actions, reconcile_after=0)


def _same_content(former: LabeledDatasetStatus, wanted: Wanted) -> bool:
    return (former.revision, former.store) == (wanted.revision, wanted.store)


def _until_planned(former: LabeledDatasetStatus) -> list[StageStatus]:
    """Return the former run's stages as the next one finds them, as far as can be told before its plan.

    Samples count as done once they are in the store. So the plan finds them, and no number goes back; unless somebody
    has deleted them, and then the plan is right.
    """
    return [
        StageStatus(
            name=stage.name,
            kind=stage.kind,
            gpu=stage.gpu,
            samples=SampleCounts(total=stage.samples.total, done=stage.samples.done, reused=stage.samples.done),
        )
        for stage in former.stages
    ]


def started_over(dataset: Dataset, wanted: Wanted, again: Restart, now: datetime) -> Decision:
    """Begin anew because a step's result, or what was planned, is lost."""
    replans = dataset.status.replans + (1 if again is Restart.WORK_LOST else 0)
    return begin(dataset, wanted, again.value, now, replans=replans)


def with_replans(phase: Phase) -> Phase:
    """Return the phase of a run that has been planned anew as often as it may."""
    message = f"{sentence(phase.message)} It was planned anew {MOST_REPLANS} times: something keeps deleting."
    return replace(phase, message=message)


def delete_strays(dataset: Dataset, observed: Observed) -> list[Action]:
    """Return the deletions of all Jobs of other runs."""
    return [
        DeleteJob(job.name, job.uid, wait=not job.finished)
        for job in _strays(dataset, observed)
        if job.deleting_since is None
    ]


def still_stopping(dataset: Dataset, observed: Observed, settings: Settings, now: datetime) -> timedelta | None:
    """Return how long to wait for the pods of a former run, or None where nothing is in the way.

    A plan that looks at the store while former workers still write would ask for pictures that they are about
    to finish. That wastes work and harms nothing, so the wait is bounded: a lost node must not stop a
    dataset.
    """
    limit = timedelta(seconds=settings.termination_grace) + _STOPPING_SLACK
    waits = [(job.deleting_since or now) + limit - now for job in _strays(dataset, observed) if not job.finished]
    longest = max(waits, default=timedelta(0))
    return longest if longest > timedelta(0) else None


def _strays(dataset: Dataset, observed: Observed) -> list[Job]:
    return [job for job in observed.jobs if job.attempt != dataset.status.attempt]


def finished(dataset: Dataset) -> bool:
    """Whether the present run has published. Only a published run is Ready, and only a new run ends that."""
    return find(dataset.status.conditions, READY) is not None
