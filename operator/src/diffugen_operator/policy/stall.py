"""A run that makes no progress though nothing fails: a pod hangs, a volume is never mounted, an image cannot be pulled.

Such a run is reported as Stalled with the reason NoProgress after a configurable time. This is only a report: its Jobs
keep trying, and the report is withdrawn as soon as anything changes. A change of a step, a stage, a sample or the step
of a training counts as progress; a pod that crashes and is replaced does not. Waiting for a node or in a Kueue queue is
no stall, unless another stage is active and makes no progress. Plan and publish report no progress of their own, so
they count as healthy while their pod runs (`activeDeadlineSeconds` limits them).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from diffugen_api.v1alpha1 import LabeledDatasetStatus, StageStatus
from diffugen_operator import reasons
from diffugen_operator.observed.base import read_time, write_time
from diffugen_operator.observed.pods import Pod
from diffugen_operator.observed.situation import Situation
from diffugen_operator.policy.actions import StepResult
from diffugen_operator.policy.stages import STEP
from diffugen_operator.status.conditions import Phase, sentence


def with_stall(result: StepResult, situation: Situation) -> StepResult:
    """Return the result with the time of the last progress; stalled if that is too long ago."""
    phase = result.phase
    if phase is None or not phase.should_progress:
        return result
    if _moved(situation.dataset.status, result.ledger, phase):
        result = replace(
            result, ledger=result.ledger.model_copy(update={"last_progress_time": write_time(situation.now)})
        )
    due = stalls_at(result, situation)
    if due is None or situation.now < due:
        return result
    message = (
        f"No progress since {result.ledger.last_progress_time}. {sentence(phase.message)} Look at the pods' "
        "events and logs. The run goes on by itself if it can; an edit or a retry begins it again."
    )
    return replace(result, phase=replace(Phase.stalled(phase.step, reasons.NO_PROGRESS, message), queued=phase.queued))


def stalls_at(result: StepResult, situation: Situation) -> datetime | None:
    """Return when the run stalls if there is no progress until then; None if it cannot stall."""
    since, phase = read_time(result.ledger.last_progress_time), result.phase
    if phase is None or not phase.should_progress or since is None or situation.settings.no_progress_after <= 0:
        return None
    times = [since]
    if not (result.ledger.planned and phase.step in {stage.name for stage in result.ledger.stages}):
        pods = [pod for pod in situation.observed.pods if _of_this_attempt(pod, result, situation)]
        if any(pod.running for pod in pods):
            return None
        ends = [read_time(pod.ended.finished_at) for pod in pods if pod.ended is not None]
        times += [end for end in ends if end is not None]
    return max(times) + timedelta(seconds=situation.settings.no_progress_after)


def _of_this_attempt(pod: Pod, result: StepResult, situation: Situation) -> bool:
    job = situation.observed.job(pod.job)
    return job is not None and job.attempt == result.ledger.attempt


def _moved(old: LabeledDatasetStatus, new: LabeledDatasetStatus, phase: Phase) -> bool:
    waited = old.summary.reason in {reasons.QUEUED, reasons.SUSPENDED}
    return (
        read_time(old.last_progress_time) is None
        or waited
        or old.summary.stage != phase.step
        or _marks(old) != _marks(new)
    )


def _marks(status: LabeledDatasetStatus) -> tuple[object, ...]:
    return status.attempt, status.planned, [_marks_of(stage) for stage in status.stages], status.publish_shards


def _marks_of(stage: StageStatus) -> tuple[object, ...]:
    # Other messages than a training's step are shortened in the status, so the former one differs from the new one.
    step = stage.message if STEP.fullmatch(stage.message) else ""
    return stage.state, stage.samples.done, stage.shards.succeeded, stage.shards.failed, step
