"""The stages: one Indexed Job for each stage that has work, as soon as its source stages are done.

A stage that is recorded as Succeeded stays so after its Job was removed. If a stage fails, all stages that do not
depend on it are finished first (their images are kept), and then the run stalls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from diffugen_api.contract import Step
from diffugen_api.v1alpha1 import LabeledDatasetStatus, ShardStatus, StageStatus
from diffugen_operator import reasons
from diffugen_operator.manifests import names
from diffugen_operator.manifests.jobs import RunPlan, queue_of, stage_job
from diffugen_operator.manifests.names import RunKey
from diffugen_operator.observed.base import Trouble, write_time
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.progress import Cut, Shard, parse_indexes, samples_done
from diffugen_operator.observed.situation import Observed, Situation
from diffugen_operator.policy.actions import Action, CreateJob, ResizeJob, StepResult
from diffugen_operator.policy.indexed_jobs import failure_of, shard_status
from diffugen_operator.policy.job_state import Complete, Failed, Missing, created_phase, job_state
from diffugen_operator.policy.pod_shares import shares
from diffugen_operator.policy.stage_graph import blocked, ready, sources
from diffugen_operator.status.conditions import Phase, cut

_STAGE_MESSAGE_LENGTH = 128
STEP = re.compile(r"Step ([0-9,]{1,13}) of [0-9,]{1,13}\.")
"""The message of a stage that trains."""


@dataclass(frozen=True, slots=True)
class _StageState:
    """One stage with the state of its Job."""

    stage: StageStatus
    actions: tuple[Action, ...] = ()
    phase: Phase | None = None
    failure: Trouble | None = None
    job: Job | None = None
    """Its Job, if that is active."""

    @property
    def needs(self) -> int:
        """How many of its shards are not finished yet."""
        return self.stage.shards.total - self.stage.shards.succeeded - self.stage.shards.failed

    @property
    def keeps(self) -> int:
        """How many pods it keeps in any case: only Kueue may resize a Job that was created in a queue."""
        return min(self.job.parallelism, self.needs) if self.job is not None and self.job.queue else 0


def advance_stages(run: RunPlan, ledger: LabeledDatasetStatus, situation: Situation) -> StepResult:
    """Return the actions and the phase of the stages; no phase once all of them have succeeded."""
    looks = [_observe(run, stage, situation) for stage in ledger.stages]
    looks = _shared(run, looks, situation.now)
    failed = next((look for look in looks if look.failure is not None), None)
    ledger = ledger.model_copy(update={"stages": [look.stage for look in looks]})
    # Jobs that give up pods come first.
    actions = sorted((action for look in looks for action in look.actions), key=lambda a: isinstance(a, CreateJob))
    active = _shown([look.phase for look in looks if look.phase is not None])
    if failed is not None and failed.failure is not None and active is None:
        phase = Phase.stalled(failed.stage.name, failed.failure.reason, failed.failure.message)
        return StepResult(ledger=ledger, actions=actions, phase=phase)
    return StepResult(ledger=ledger, actions=actions, phase=active)


def _shown(phases: Sequence[Phase]) -> Phase | None:
    """Return the phase of the first running stage, else of the first queued one; `queued` is set if any stage waits."""
    waits = next((phase for phase in phases if phase.queued is not None), None)
    works = next((phase for phase in phases if phase.queued is None), None)
    return replace(works, queued=waits.queued) if works is not None and waits is not None else works or waits


def with_finished(key: RunKey, ledger: LabeledDatasetStatus, situation: Situation) -> LabeledDatasetStatus:
    """Return the ledger with every stage whose Job is complete as Succeeded; the others stay as they are."""
    stages = [_done_if_complete(key, stage, situation) for stage in ledger.stages]
    return ledger.model_copy(update={"stages": stages})


def _done_if_complete(key: RunKey, stage: StageStatus, situation: Situation) -> StageStatus:
    job = situation.observed.job(names.job_name(key, Step.STAGE, stage.name))
    if stage.state == "Succeeded" or job is None or not job.complete:
        return stage
    return _succeeded(_begun(stage, job.name, job.created_at or situation.now), job, situation.now)


def _observe(run: RunPlan, stage: StageStatus, situation: Situation) -> _StageState:
    if stage.state == "Succeeded":
        return _StageState(stage)
    state = job_state(names.job_name(run.key, Step.STAGE, stage.name), _working(stage), situation)
    if isinstance(state, Missing):
        return _StageState(
            stage.model_copy(update={"state": "Pending", "shards": ShardStatus(total=stage.shards.total)})
        )
    job, observed = state.job, situation.observed
    stage = _begun(stage, job.name, job.created_at or situation.now)
    if isinstance(state, Complete):
        return _StageState(_succeeded(stage, job, situation.now))
    stage = _counted(run, stage, job, observed)
    if isinstance(state, Failed):
        failure = failure_of(state, f"stage {stage.name}", reasons.STAGE_FAILED, observed)
        message = cut(failure.message, _STAGE_MESSAGE_LENGTH)
        return _StageState(stage.model_copy(update={"state": "Failed", "message": message}), failure=failure)
    if job.deleting_since is None:
        stage = _with_state(stage, state.phase)
    return _StageState(stage, state.actions, state.phase, job=job)


def _with_state(stage: StageStatus, phase: Phase) -> StageStatus:
    return stage.model_copy(update={"state": "Running" if phase.queued is None else "Queued"})


def _shared(run: RunPlan, looks: list[_StageState], now: datetime) -> list[_StageState]:
    """Start the stages for which pods are free, and give active stages their part of run.parallelism."""
    whole = max(0, run.spec.run.parallelism - sum(look.keeps for look in looks))
    under_way = [look for look in looks if look.job is not None and not look.job.queue]
    stages = [look.stage for look in looks]
    depends_on = {stage.name: sources(stage) for stage in run.spec.stages}
    begins = ready(stages, depends_on)[: max(0, whole - len(under_way))]
    stopped = blocked(stages, depends_on)
    sharing = [look for look in looks if look in under_way or look.stage.name in begins]
    parts = dict(zip((look.stage.name for look in sharing), shares(whole, [s.needs for s in sharing]), strict=True))
    return [
        _with_part(run, look, parts[look.stage.name], now) if look in sharing else _waiting(look, stopped)
        for look in looks
    ]


def _waiting(look: _StageState, stopped: Mapping[str, str]) -> _StageState:
    stage = look.stage
    if stage.state != "Pending":
        return look
    message = f"It depends on stage {stopped[stage.name]}, which failed." if stage.name in stopped else ""
    return replace(look, stage=stage.model_copy(update={"message": message}))


def _with_part(run: RunPlan, look: _StageState, part: int, now: datetime) -> _StageState:
    job = look.job
    if job is None:
        return _started(run, look, part, now)
    # More pods than shards left have no effect: the end of a Job is not worth a request.
    if job.deleting_since is not None or min(job.parallelism, look.needs) == min(part, look.needs):
        return look
    return replace(look, actions=(*look.actions, ResizeJob(job.name, part)))


def _started(run: RunPlan, look: _StageState, parallelism: int, now: datetime) -> _StageState:
    job = CreateJob(stage_job(run, look.stage, parallelism))
    stage = _begun(look.stage, job.name, now)
    phase = created_phase(job.name, _working(stage), queue_of(run.spec, gpu=stage.gpu))
    return _StageState(_with_state(stage, phase), (job,), phase)


def _begun(stage: StageStatus, job: str, at: datetime) -> StageStatus:
    return stage.model_copy(update={"job": job, "start_time": stage.start_time or write_time(at)})


def _working(stage: StageStatus) -> Phase:
    if stage.gpu:
        return Phase.working(stage.name, reasons.DRAWING, f"Stage {stage.name} draws and labels images.")
    return Phase.working(stage.name, reasons.LABELING, f"Stage {stage.name} decides labels again; no GPU is used.")


def _succeeded(stage: StageStatus, job: Job, now: datetime) -> StageStatus:
    samples = stage.samples.model_copy(update={"done": stage.samples.total})
    return stage.model_copy(
        update={
            "state": "Succeeded",
            "samples": samples,
            "shards": ShardStatus(total=stage.shards.total, succeeded=stage.shards.total),
            "completion_time": job.completion_time or write_time(now),
            "message": "",
        }
    )


def _counted(run: RunPlan, stage: StageStatus, job: Job, observed: Observed) -> StageStatus:
    samples = stage.samples
    size = Cut.of(run.spec, samples.total - samples.reused, stage.shards.total)
    finished = {index for span in parse_indexes(job.completed_indexes) for index in (str(i) for i in span)}
    running = [
        observed.shards[pod.name]
        for pod in observed.pods_of(job)
        if pod.name in observed.shards and pod.index not in finished
    ]
    message = stage.message
    if not _draws(run, stage):  # the pod counts the steps of its training, which has one sample
        message, running = _steps_message(message, running), []
    done = samples.reused + samples_done(size, job.completed_indexes, running)
    shards = shard_status(job, stage.shards.total)
    counted = samples.model_copy(update={"done": max(done, samples.done)})
    return stage.model_copy(update={"samples": counted, "shards": shards, "message": message})


def _draws(run: RunPlan, stage: StageStatus) -> bool:
    return all(each.draws for each in run.spec.stages if each.name == stage.name)


def _steps_message(known: str, running: Sequence[Shard]) -> str:
    """Return how far a training is; a pod that starts again from a checkpoint does not take the number back."""
    before = STEP.fullmatch(known)
    reached = int(before[1].replace(",", "")) if before else 0
    for shard in running:
        if shard.total and shard.done > reached:
            return f"Step {shard.done:,} of {shard.total:,}."
    return known
