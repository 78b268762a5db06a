"""The policy: what to do about a dataset, from its spec and what is observed.

Pure: no I/O and no clock. Read from top to bottom, it is the life of a dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from diffugen_api.contract import REASON_INCOMPLETE, StagePlan
from diffugen_api.v1alpha1 import LabeledDatasetStatus
from diffugen_operator import reasons
from diffugen_operator.manifests import jobs
from diffugen_operator.manifests.jobs import RunPlan
from diffugen_operator.observed.base import Trouble
from diffugen_operator.observed.dataset import InvalidSpec, Wanted
from diffugen_operator.observed.situation import Situation
from diffugen_operator.policy import deletion, publish_step, runs
from diffugen_operator.policy.actions import (
    Action,
    CreateJob,
    CreateWorkOrder,
    Decision,
    DeleteJob,
    ResizeJob,
    SetFinalizer,
    StepResult,
    SuspendJob,
)
from diffugen_operator.policy.plan_step import PLAN, planned
from diffugen_operator.policy.pod_steps import InProgress, ResultLost, step_state, with_work_order
from diffugen_operator.policy.pod_troubles import PODS_DUE, START_DUE, ends_at
from diffugen_operator.policy.publish_shards import publish_shards
from diffugen_operator.policy.publish_step import published
from diffugen_operator.policy.runs import Restart
from diffugen_operator.policy.stages import advance_stages
from diffugen_operator.policy.stall import stalls_at, with_stall
from diffugen_operator.policy.suspension import suspended_run
from diffugen_operator.status.conditions import STALLED, Phase, find, sentence
from diffugen_operator.status.rendering import is_halted, presented


def decide(situation: Situation) -> Decision:
    """Return what to do now, and the status to write once that is done."""
    dataset = situation.dataset
    if dataset.deleting:
        return deletion.on_deletion(situation)
    if (change := deletion.change_of_finalizer(dataset)) is not None:  # Before anything is written to the store.
        return Decision(status=dataset.status, actions=[change], reconcile_after=0)
    wanted = dataset.wanted
    if isinstance(wanted, InvalidSpec):
        ledger = suspended_run(situation, runs.with_retry_recorded(dataset)).ledger
        phase = Phase.stalled("", wanted.reason, wanted.message)
        status = presented(dataset, ledger, phase, now=situation.now)
        return Decision(status=status, actions=_suspensions(situation))
    if (why := runs.why_begin(situation, wanted)) is not None:
        return runs.begin(situation, wanted, why)

    if is_halted(dataset.status):  # Until an edit or a retry begins another run.
        actions = [*runs.delete_strays(situation), *_suspensions(situation)]
        return Decision(status=_halted(situation), actions=actions)
    return _continue(situation, wanted)


def _halted(situation: Situation) -> LabeledDatasetStatus:
    """Return the status of a run that has stalled for good: unchanged, except that an edit may have suspended it."""
    dataset = situation.dataset
    stalled = find(dataset.status.conditions, STALLED)
    if stalled is None or dataset.generation == dataset.status.observed_generation:
        return dataset.status
    phase = Phase.stalled(dataset.status.summary.stage, stalled.reason, stalled.message)
    return presented(dataset, dataset.status, phase, now=situation.now)


def _continue(situation: Situation, wanted: Wanted) -> Decision:
    """Return the next decision about the present run."""
    dataset, now = situation.dataset, situation.now
    strays = runs.delete_strays(situation)
    ledger = runs.with_retry_recorded(dataset)  # The run makes progress, so nothing else is done about a request.
    if runs.finished(dataset):
        phase = Phase.published(publish_step.message(ledger))
        return Decision(status=presented(dataset, ledger, phase, now=now), actions=strays)
    if wanted.spec.suspend:
        held = suspended_run(situation, ledger)
        actions = [*strays, *_suspensions(situation)]
        status = presented(dataset, held.ledger, held.phase, now=now)
        return Decision(status=status, actions=actions, plan=held.plan, warnings=held.warnings)
    if (wait := runs.still_stopping(situation)) is not None:
        return _stopping(situation, ledger, strays, wait)

    run = RunPlan(key=runs.run_key(dataset), spec=wanted.spec, settings=situation.settings)
    result = _advance(run, situation, ledger)
    if isinstance(result, Restart):
        return runs.restarted(situation, wanted, result)
    result = replace(result, actions=with_work_order(result.actions, result.phase, jobs.work_order, run))
    result = with_stall(result, situation)
    phase = result.phase or Phase.published(publish_step.message(result.ledger))
    return Decision(
        status=presented(dataset, result.ledger, phase, now=now, pace=situation.observed.pace),
        actions=[*strays, *result.actions],
        reconcile_after=_reconcile_after(result, situation),
        plan=result.plan,
        warnings=result.warnings,
    )


def _reconcile_after(result: StepResult, situation: Situation) -> float | None:
    """Return when to reconcile even if no event arrives: for progress, for pods that are overdue, for a stall."""
    observed, now = situation.observed, situation.now
    if result.phase is None:
        return None
    drawing = {job.name for job in observed.jobs if job.stage and not job.finished}
    if any(pod.running and pod.job in drawing for pod in observed.pods):
        return situation.settings.scrape_interval
    started = {pod.job for pod in observed.pods}
    without_pods = [job for job in observed.jobs if not (job.finished or job.suspended) and job.name not in started]
    if without_pods or result.actions:
        return PODS_DUE.total_seconds() + 1
    due = [pod.starting_since + START_DUE for pod in observed.pods if pod.starting_since is not None]
    due += [end for pod in observed.pods if (end := ends_at(pod)) is not None]
    times = [moment for moment in due if moment >= now]
    if (stalls := stalls_at(result, situation)) is not None:
        times.append(stalls)
    return max(1.0, (min(times) - now).total_seconds()) if times else None


def _advance(run: RunPlan, situation: Situation, ledger: LabeledDatasetStatus) -> StepResult | Restart:
    """Return the result of the run's current step: plan, stages, publish, in this order; or why the run restarts."""
    stage_plans: Sequence[StagePlan] = ()
    warnings: Sequence[str] = ()
    if not ledger.planned:
        plan = step_state(PLAN, run, situation)
        if isinstance(plan, ResultLost):
            return Restart.RESULT_LOST
        if isinstance(plan, InProgress):
            return StepResult(ledger=ledger, actions=plan.actions, phase=plan.phase)
        ledger, stage_plans = planned(ledger, run.spec, plan.outcome), plan.outcome.plan or ()
        warnings = plan.outcome.warnings
    if {stage.name for stage in ledger.stages} != {stage.name for stage in run.spec.stages}:
        return Restart.RESULT_LOST  # A status that was restored, or that somebody else wrote.
    stages = replace(advance_stages(run, ledger, situation), plan=stage_plans, warnings=warnings)
    return stages if stages.phase is not None else _publish(run, stages, situation)


def _publish(run: RunPlan, stages: StepResult, situation: Situation) -> StepResult | Restart:
    shards = publish_shards(run, stages.ledger, situation)
    ledger = shards.ledger
    stages = replace(stages, ledger=ledger)
    publish = shards.in_progress or step_state(publish_step.publish_step(shards.division), run, situation)
    if isinstance(publish, ResultLost):
        return Restart.RESULT_LOST
    if isinstance(publish, InProgress) and publish.phase.reason == REASON_INCOMPLETE:
        if ledger.replans < runs.MOST_REPLANS:
            return Restart.WORK_LOST
        return replace(stages, phase=runs.with_replans(publish.phase))
    if isinstance(publish, InProgress):
        return replace(stages, actions=publish.actions, phase=publish.phase)
    return replace(stages, ledger=published(ledger, publish.outcome, publish.at))


def refused(situation: Situation, decision: Decision, trouble: Trouble, *, for_good: bool) -> Decision:
    """Return the decision after the API server refused an action: the status of the first decision is not written.

    The actions before the refused one are done; the next reconcile observes them. `for_good`: the same request would be
    refused again, so the run stalls, and its Jobs are suspended. Otherwise the run is queued.
    """
    dataset, step = situation.dataset, decision.status.summary.stage
    if dataset.deleting and trouble.reason == reasons.NAMESPACE_TERMINATING:
        return deletion.abandoned(situation, "The namespace is being deleted too: no Job can be created in it.")
    if for_good:
        phase = Phase.stalled(step, trouble.reason, trouble.message)
        return Decision(status=presented(dataset, dataset.status, phase, now=situation.now), reconcile_after=0)
    phase = Phase.working(step, reasons.QUEUED, trouble.message, queued=trouble)
    return Decision(status=presented(dataset, dataset.status, phase, now=situation.now), reconcile_after=30)


_NOT_DONE: Mapping[type, tuple[str, str]] = {
    CreateJob: (reasons.JOB_NOT_CREATED, "Job {} cannot be created"),
    CreateWorkOrder: (reasons.CONFIG_MAP_NOT_CREATED, "ConfigMap {} cannot be created"),
    SuspendJob: (reasons.JOB_NOT_CHANGED, "Job {} cannot be suspended or resumed"),
    ResizeJob: (reasons.JOB_NOT_CHANGED, "The parallelism of Job {} cannot be changed"),
    DeleteJob: (reasons.JOB_NOT_DELETED, "Job {} cannot be deleted"),
    SetFinalizer: (reasons.FINALIZER_NOT_CHANGED, "The dataset's finalizer cannot be changed"),
}
"""The reason and the message for each action that fails repeatedly."""


def failing(situation: Situation, decision: Decision, action: Action, words: str) -> Decision | None:
    """Return the decision that reports an action which fails repeatedly; None if nothing can be reported.

    `words` is the API server's message. The action is tried again, and a run that makes no progress stalls meanwhile.
    """
    dataset = situation.dataset
    if decision.status.attempt != dataset.status.attempt:  # The run's first status reports that it begins, and why.
        return None
    reason, what = _NOT_DONE[type(action)]
    name = "" if isinstance(action, SetFinalizer) else action.name
    message = f"{what.format(name)}: {sentence(words)} It is tried again, with growing pauses."
    result = StepResult(ledger=dataset.status, phase=Phase.working(decision.status.summary.stage, reason, message))
    if not dataset.deleting:
        result = with_stall(result, situation)
    phase = result.phase or Phase.working("", reason, message)
    return Decision(status=presented(dataset, result.ledger, phase, now=situation.now))


def _stopping(
    situation: Situation, ledger: LabeledDatasetStatus, strays: Sequence[Action], wait: timedelta
) -> Decision:
    message = "The pods of the former run finish their batch and stop; then this run continues."
    phase = Phase.working("planning", reasons.STOPPING, message)
    status = presented(situation.dataset, ledger, phase, now=situation.now)
    return Decision(status=status, actions=strays, reconcile_after=wait.total_seconds())


def _suspensions(situation: Situation) -> list[Action]:
    """Return the actions that stop the present run's pods and keep what they have done."""
    jobs = situation.observed.under_way(situation.dataset.status.attempt)
    # Kueue owns the `suspend` of a queued Job and would reset it. Without the Job, no pods and no quota are in use. It
    # is created again afterwards, and its workers continue from what the store holds.
    # The same applies to a Job that somebody resumed though we had suspended it: it has our mark and runs.
    owned = [job for job in jobs if job.queue or (job.suspended_by_us and not job.suspended)]
    deletions = [DeleteJob(job.name, job.uid, wait=True) for job in owned]
    ours = [job for job in jobs if job not in owned and not job.suspended]
    return [*deletions, *(SuspendJob(job.name, suspend=True) for job in ours)]
