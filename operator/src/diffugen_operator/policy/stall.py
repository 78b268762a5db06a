"""A run that does not get on, though nothing ends it: a pod that hangs, a volume that is never mounted, an image
that cannot be pulled.

It is called Stalled, for NoProgress, once nothing has moved for a configurable time, and only called so: its Jobs
go on trying, and it is taken back as soon as anything moves. What moves is a step, a stage or a sample; a pod that
crashes and comes again does not. To wait in line, for a node or in Kueue's queue, is no stall, unless something beside
it is at work and does not get on. Plan and publish tell
nothing of how far they are, so while their pod runs they are believed (`activeDeadlineSeconds` bounds them).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from diffugen_api.v1alpha1 import LabeledDatasetStatus
from diffugen_operator import reasons
from diffugen_operator.observed.base import read_time, write_time
from diffugen_operator.observed.dataset import Dataset
from diffugen_operator.observed.pods import Pod
from diffugen_operator.observed.situation import Observed
from diffugen_operator.policy.actions import StepResult
from diffugen_operator.settings import Settings
from diffugen_operator.status.conditions import Phase, sentence


def watched(dataset: Dataset, turn: StepResult, observed: Observed, now: datetime, settings: Settings) -> StepResult:
    """Return the turn with the time at which anything last moved; stalled, where that is too long ago."""
    phase = turn.phase
    if phase is None or not phase.gets_on:
        return turn
    if _moved(dataset.status, turn.ledger, phase):
        turn = replace(turn, ledger=turn.ledger.model_copy(update={"last_progress_time": write_time(now)}))
    due = stalls_at(turn, observed, settings)
    if due is None or now < due:
        return turn
    message = (
        f"Nothing has moved since {turn.ledger.last_progress_time}. {sentence(phase.message)} Look at the pods' "
        "events and logs; it goes on by itself where it can, and begins once more after an edit or a retry."
    )
    return replace(turn, phase=replace(Phase.stalled(phase.step, reasons.NO_PROGRESS, message), queued=phase.queued))


def stalls_at(turn: StepResult, observed: Observed, settings: Settings) -> datetime | None:
    """Return when the run stalls if nothing moves until then; None where it does not."""
    since, phase = turn.ledger.last_progress_time, turn.phase
    if phase is None or not phase.gets_on or since is None or settings.no_progress_after <= 0:
        return None
    times = [read_time(since)]
    if not (turn.ledger.planned and phase.step in {stage.name for stage in turn.ledger.stages}):
        pods = [pod for pod in observed.pods if _of_this_attempt(pod, turn, observed)]
        if any(pod.running for pod in pods):
            return None
        times += [read_time(pod.ended.finished_at) for pod in pods if pod.ended is not None and pod.ended.finished_at]
    return max(times) + timedelta(seconds=settings.no_progress_after)


def _of_this_attempt(pod: Pod, turn: StepResult, observed: Observed) -> bool:
    job = observed.job(pod.job)
    return job is not None and job.attempt == turn.ledger.attempt


def _moved(old: LabeledDatasetStatus, new: LabeledDatasetStatus, phase: Phase) -> bool:
    waited = old.summary.reason in {reasons.QUEUED, reasons.SUSPENDED}
    return old.last_progress_time is None or waited or old.summary.stage != phase.step or _marks(old) != _marks(new)


def _marks(status: LabeledDatasetStatus) -> tuple[object, ...]:
    stages = [(stage.state, stage.samples.done, stage.shards.succeeded, stage.shards.failed) for stage in status.stages]
    return status.attempt, status.planned, stages
