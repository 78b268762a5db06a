"""The shards of the publication of a large dataset: one Indexed Job before the publish step, which joins them.

A dataset with at most `run.samplesPerPublishShard` samples has none. How many there are is recorded when their Job is
created: an edit applies to the next attempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from diffugen_api.contract import MAX_SHARDS, Step
from diffugen_api.v1alpha1 import LabeledDatasetStatus, ShardStatus
from diffugen_operator import reasons
from diffugen_operator.manifests import names
from diffugen_operator.manifests.jobs import Division, RunPlan, publish_shard_job, queue_of
from diffugen_operator.manifests.names import RunKey
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.situation import Situation
from diffugen_operator.policy.actions import Action, CreateJob, ResizeJob
from diffugen_operator.policy.indexed_jobs import failure_of, shard_status
from diffugen_operator.policy.job_state import Complete, Failed, Missing, created_phase, job_state
from diffugen_operator.policy.pod_steps import InProgress
from diffugen_operator.status.conditions import Phase

SHOWN = "publishing"


@dataclass(frozen=True, slots=True)
class PublishShards:
    """The state of the shards."""

    ledger: LabeledDatasetStatus
    division: Division | None = None
    """How the samples are divided; None if one pod publishes all."""
    in_progress: InProgress | None = None
    """What has to be done for them; None once they are done, and where there are none."""


def publish_shards(run: RunPlan, ledger: LabeledDatasetStatus, situation: Situation) -> PublishShards:
    """Return the state of the shards, and what has to be done for them."""
    division = _division(run, ledger, situation)
    if division is None:
        return PublishShards(ledger)
    known = ledger.publish_shards or ShardStatus(total=division.count)
    if known.succeeded == known.total:
        return PublishShards(ledger, division)
    state = job_state(_job_name(run.key), _working(known), situation)
    if isinstance(state, Missing):
        known = ShardStatus(total=division.count)
        creation = CreateJob(publish_shard_job(run, division, min(run.spec.run.parallelism, division.count)))
        phase = created_phase(creation.name, _working(known), queue_of(run.spec, gpu=False))
        return PublishShards(_recorded(ledger, known), division, InProgress(phase, (creation,)))
    known = _counted(known, state.job, complete=isinstance(state, Complete))
    ledger = _recorded(ledger, known)
    if isinstance(state, Complete):
        return PublishShards(ledger, division)
    if isinstance(state, Failed):
        failure = failure_of(state, "the publication", reasons.PUBLISH_FAILED, situation.observed)
        return PublishShards(ledger, division, InProgress(Phase.stalled(SHOWN, failure.reason, failure.message)))
    phase = _working(known) if state.phase.reason == reasons.PUBLISHING else state.phase
    actions = (*state.actions, *_resized(run, state.job, known))
    return PublishShards(ledger, division, InProgress(phase, actions))


def with_finished_shards(key: RunKey, ledger: LabeledDatasetStatus, situation: Situation) -> LabeledDatasetStatus:
    """Return the ledger with the shards as done if their Job is complete."""
    job, known = situation.observed.job(_job_name(key)), ledger.publish_shards
    if known is None or job is None or not job.complete:
        return ledger
    return _recorded(ledger, _counted(known, job, complete=True))


def _division(run: RunPlan, ledger: LabeledDatasetStatus, situation: Situation) -> Division | None:
    drawing = {stage.name for stage in run.spec.stages if stage.draws}
    total = sum(stage.samples.total for stage in ledger.stages if stage.name in drawing)
    if ledger.publish_shards is not None:
        count = ledger.publish_shards.total
    elif situation.observed.job(names.job_name(run.key, Step.PUBLISH)) is not None:
        return None  # one pod publishes all, since before an edit
    else:
        count = min(MAX_SHARDS, ceil(total / run.spec.run.samples_per_publish_shard))
    return Division(count, max(1, ceil(total / count))) if count > 1 else None


def _working(known: ShardStatus) -> Phase:
    message = f"The samples are published in {known.total} shards, of which {known.succeeded} are done; then joined."
    return Phase.working(SHOWN, reasons.PUBLISHING, message)


def _resized(run: RunPlan, job: Job, known: ShardStatus) -> tuple[Action, ...]:
    wanted, needs = run.spec.run.parallelism, known.total - known.succeeded - known.failed
    # Only Kueue resizes a queued Job. More pods than shards left have no effect.
    if job.queue or job.deleting_since is not None or min(job.parallelism, needs) == min(wanted, needs):
        return ()
    return (ResizeJob(job.name, min(wanted, needs)),)


def _counted(known: ShardStatus, job: Job, *, complete: bool) -> ShardStatus:
    return ShardStatus(total=known.total, succeeded=known.total) if complete else shard_status(job, known.total)


def _recorded(ledger: LabeledDatasetStatus, known: ShardStatus) -> LabeledDatasetStatus:
    return ledger.model_copy(update={"publish_shards": known})


def _job_name(key: RunKey) -> str:
    return names.job_name(key, Step.PUBLISH_SHARD)
