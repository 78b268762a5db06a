"""When a run begins, and what happens to the run before it.

A run is one attempt of one revision for one store. The status is its ledger. The ledger is written before anything is
created, and attempts only grow. So no two runs share a Job's name, not even when a spec is edited and edited back.

A run begins when the content or the store changes. The same run begins again, with what the store holds by then,

- when it is stalled, and a retry is requested or the spec is edited in any way: the edit may fix the cause;
- when one of its Jobs is suspended or makes no progress, and the present spec would build it differently: Jobs cannot
  be edited. Then all Jobs of the run are deleted, also those that make progress. If all make progress, none is;
- when it makes no progress for another cause than waiting for a node, and a retry is requested.

While spec.suspend is true, this waits.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from enum import Enum

from diffugen_api.contract import Step
from diffugen_api.v1alpha1 import MOST_ATTEMPTS, LabeledDatasetSpec, LabeledDatasetStatus, SampleCounts, StageStatus
from diffugen_operator import reasons
from diffugen_operator.manifests import jobs, names
from diffugen_operator.manifests.names import RunKey
from diffugen_operator.observed.base import write_time
from diffugen_operator.observed.dataset import Dataset, Wanted
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.situation import Situation
from diffugen_operator.policy.actions import Action, Decision, DeleteJob, DeleteWorkOrder
from diffugen_operator.policy.pod_troubles import pod_trouble
from diffugen_operator.status.conditions import READY, STALLED, Phase, find, sentence
from diffugen_operator.status.rendering import is_stalled, presented

_STOPPING_SLACK = timedelta(seconds=60)
"""How long to wait for the pods of a former run beyond their grace period."""


MOST_REPLANS = 3
"""How often a run plans again by itself when the store lacks what was planned or drawn."""


_OUTDATED = "The spec was edited, and Jobs that wait were made from the former spec."
_RETRY = "A retry was requested."


class Restart(Enum):
    """Why a run restarts by itself."""

    RESULT_LOST = "The result of a finished step was lost with its pod; planning again."
    WORK_LOST = "Something vanished from the store between plan and publication; planning again."


def run_key(dataset: Dataset) -> RunKey:
    """Return the run that the dataset's status describes."""
    status = dataset.status
    return RunKey(
        uid=dataset.uid,
        namespace=dataset.namespace,
        name=dataset.name,
        revision=status.revision,
        store=status.store,
        attempt=status.attempt,
    )


def retry_requested(dataset: Dataset) -> bool:
    """Whether the retry annotation has a value that was not handled yet."""
    return bool(dataset.retry_at) and dataset.retry_at != dataset.status.last_handled_retry_at


def with_retry_recorded(dataset: Dataset) -> LabeledDatasetStatus:
    """Return the status with the retry request as handled: its client waits for that, and reads the state then."""
    if not retry_requested(dataset):
        return dataset.status
    return dataset.status.model_copy(update={"last_handled_retry_at": dataset.retry_at})


def why_begin(situation: Situation, wanted: Wanted) -> str | None:
    """Return why a new run has to begin, as a sentence; None if the present run continues."""
    status = situation.dataset.status
    if status.attempt == 0:
        return "The dataset is new; its plan is made first."
    if situation.dataset.restored:
        return "The status was restored from a backup of another resource; the plan finds out what the store holds."
    if status.revision != wanted.revision:
        return f"The spec changed: revision {wanted.revision} follows {status.revision}."
    if status.store != wanted.store:
        return "The dataset goes to another store."
    if _was_invalid(status) and not status.summary.stage:  # The stage is empty only if the operator refused the spec.
        return "The spec is valid now."
    waits = wanted.spec.suspend and not _was_invalid(status)  # A suspended run is retried when it is resumed.
    return None if waits else why_begin_again(situation, wanted.spec)


def _was_invalid(status: LabeledDatasetStatus) -> bool:
    condition = find(status.conditions, STALLED)
    return condition is not None and condition.reason in (
        reasons.INVALID_SPEC,
        reasons.STORE_NOT_SET,
        reasons.INVALID_POD_TEMPLATE,
    )


def why_begin_again(situation: Situation, spec: LabeledDatasetSpec | None) -> str | None:
    """Return why the same run has to begin again, as a sentence; None if it continues.

    `spec` is what its next Job would be built from; None if no Job can be built.
    """
    dataset, observed = situation.dataset, situation.observed
    edited, requested = dataset.generation != dataset.status.observed_generation, retry_requested(dataset)
    if is_stalled(dataset.status):
        if edited:
            return "The spec was edited while the run was stalled."
        return _RETRY if requested else None
    under_way = observed.under_way(dataset.status.attempt)
    stuck = [(job, phase) for job in under_way if (phase := pod_trouble("", job, situation)) is not None]
    idle = [job for job, _ in stuck] + [job for job in under_way if job.suspended]
    if spec is not None and any(_is_outdated(job, spec, dataset, edited=edited) for job in idle):
        return _OUTDATED
    if edited and any(
        not job.setup for job, _ in stuck
    ):  # The Jobs are of an earlier operator: any edit may be the fix.
        return _OUTDATED
    # Pods that wait for a node would lose their place by a retry and gain nothing.
    retriable = [job for job, phase in stuck if phase.queued is None]
    return _RETRY if requested and retriable else None


def _is_outdated(job: Job, spec: LabeledDatasetSpec, dataset: Dataset, *, edited: bool) -> bool:
    """Whether this Job, which makes no progress, would be built in another way from the present spec."""
    if job.step is None or not job.setup:
        return False
    stage = next((stage for stage in dataset.status.stages if stage.name == job.stage), None)
    gpu = job.step is Step.STAGE and (stage is None or stage.gpu)
    if not jobs.is_current(job.setup, spec, job.step, gpu=gpu):
        return True
    if not (edited and job.queue and job.run_parallelism and stage is not None):
        return False
    # Only Kueue resizes a queued Job. It is created again only if the edit changes how many pods it could have. This is
    # asked only while the edit is new: a Job that is evicted later keeps its place.
    needs = stage.shards.total - stage.shards.succeeded - stage.shards.failed
    return min(job.run_parallelism, needs) != min(spec.run.parallelism, needs)


def begin(situation: Situation, wanted: Wanted, why: str, *, replans: int = 0) -> Decision:
    """Return the decision that begins a run: only its entry in the ledger.

    The former run's work order is deleted now, because its name cannot be derived afterwards. `replans` counts how
    often the run restarted by itself because planned work was missing from the store. If the same content is wanted
    again, the status keeps what was done until the plan finds out what the store holds.
    """
    dataset, former = situation.dataset, situation.dataset.status
    ledger = new_ledger(situation, wanted.revision, wanted.store).model_copy(
        update={
            "replans": replans,
            "stages": _until_planned(former) if _same_content(former, wanted) else [],
            "last_progress_time": write_time(situation.now),
        }
    )
    phase = Phase.working("planning", reasons.ACCEPTED, why)
    actions: list[Action] = [DeleteWorkOrder(names.work_order_name(run_key(dataset)))] if former.attempt else []
    return Decision(status=presented(dataset, ledger, phase, now=situation.now), actions=actions, reconcile_after=0)


def new_ledger(situation: Situation, revision: str, store: str) -> LabeledDatasetStatus:
    """Return the ledger of the next attempt: without stages, and with a requested retry as handled."""
    dataset, former = situation.dataset, situation.dataset.status
    return former.model_copy(
        update={
            "revision": revision,
            "store": store,
            "attempt": former.attempt % MOST_ATTEMPTS + 1,
            "resource_uid": dataset.uid,
            "clean_up_start_time": None,
            "planned": False,
            "warnings": [],
            "stages": [],
            "publish_shards": None,
            "last_handled_retry_at": dataset.retry_at or former.last_handled_retry_at,
        }
    )


def _same_content(former: LabeledDatasetStatus, wanted: Wanted) -> bool:
    return (former.revision, former.store) == (wanted.revision, wanted.store)


def _until_planned(former: LabeledDatasetStatus) -> list[StageStatus]:
    """Return the former run's stages as the next run will probably find them; its plan corrects them.

    Samples count as done once they are in the store. So the plan finds them again, and no number goes back unless
    somebody deleted samples; then the plan is right.
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


def restarted(situation: Situation, wanted: Wanted, cause: Restart) -> Decision:
    """Return the decision that restarts the run because a step's result, or planned work, is lost."""
    replans = situation.dataset.status.replans + (1 if cause is Restart.WORK_LOST else 0)
    return begin(situation, wanted, cause.value, replans=replans)


def with_replans(phase: Phase) -> Phase:
    """Return the phase of a run that has planned again as often as it may."""
    message = (
        f"{sentence(phase.message)} It was planned again {MOST_REPLANS} times: "
        "something keeps deleting objects from the store."
    )
    return replace(phase, message=message)


def delete_strays(situation: Situation) -> list[Action]:
    """Return the actions that delete all Jobs of other runs."""
    return [
        DeleteJob(job.name, job.uid, wait=not job.finished) for job in _strays(situation) if job.deleting_since is None
    ]


def still_stopping(situation: Situation) -> timedelta | None:
    """Return how long to wait for the pods of a former run; None if none is left.

    If the plan step reads the store while former workers still write, it plans images that they are about to finish.
    That wastes work but does no harm, so the wait is limited: a lost node must not stop a dataset.
    """
    now = situation.now
    limit = timedelta(seconds=situation.settings.termination_grace) + _STOPPING_SLACK
    waits = [(job.deleting_since or now) + limit - now for job in _strays(situation) if not job.finished]
    longest = max(waits, default=timedelta(0))
    return longest if longest > timedelta(0) else None


def _strays(situation: Situation) -> list[Job]:
    return [job for job in situation.observed.jobs if job.attempt != situation.dataset.status.attempt]


def finished(dataset: Dataset) -> bool:
    """Whether the present run has published. Only a published run is Ready, until a new run begins."""
    return find(dataset.status.conditions, READY) is not None
