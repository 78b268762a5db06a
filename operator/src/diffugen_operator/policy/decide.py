"""The policy: what to do about a dataset, from what is wanted and what there is.

Pure: no I/O, no clock of its own. Read from top to bottom, it is the life of a dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from diffugen_api.contract import REASON_INCOMPLETE, StagePlan
from diffugen_api.v1alpha1 import LabeledDatasetStatus
from diffugen_operator import reasons
from diffugen_operator.manifests.jobs import RunPlan
from diffugen_operator.observed.base import Trouble
from diffugen_operator.observed.dataset import Dataset, InvalidSpec, Wanted
from diffugen_operator.observed.situation import Observed
from diffugen_operator.policy import deletion, publish_step, runs
from diffugen_operator.policy.actions import Action, Decision, DeleteJob, StepResult, SuspendJob
from diffugen_operator.policy.plan_step import PLAN, planned
from diffugen_operator.policy.pod_steps import InProgress, ResultLost, look_at
from diffugen_operator.policy.pod_troubles import PODS_DUE, START_DUE
from diffugen_operator.policy.publish_step import PUBLISH, published
from diffugen_operator.policy.runs import Restart
from diffugen_operator.policy.stages import advance_stages
from diffugen_operator.policy.stall import stalls_at, watched
from diffugen_operator.policy.suspension import suspended_run
from diffugen_operator.settings import Settings
from diffugen_operator.status.conditions import STALLED, Phase, find
from diffugen_operator.status.rendering import is_halted, presented


def decide(dataset: Dataset, observed: Observed, now: datetime, settings: Settings) -> Decision:
    """Return what to do now, and the status to write once that is done."""
    if dataset.deleting:
        return deletion.on_deletion(dataset, observed, now, settings)
    if (change := deletion.change_of_finalizer(dataset)) is not None:  # Before anything is written to the store.
        return Decision(status=dataset.status, actions=[change], reconcile_after=0)
    wanted = dataset.wanted
    if isinstance(wanted, InvalidSpec):
        ledger = suspended_run(runs.run_key(dataset), dataset.status, None, observed, now).ledger
        phase = Phase.stalled("", wanted.reason, wanted.message)
        status = presented(dataset, ledger, phase, now=now)
        return Decision(status=status, actions=_suspensions(dataset, observed))
    if (why := runs.why_begin(dataset, wanted, observed, now)) is not None:
        return runs.begin(dataset, wanted, why, now)

    if is_halted(dataset.status):  # Until an edit or a retry begins another run.
        actions = [*runs.delete_strays(dataset, observed), *_suspensions(dataset, observed)]
        return Decision(status=_halted(dataset, now), actions=actions)
    return _go_on(dataset, wanted, observed, now, settings)


def _halted(dataset: Dataset, now: datetime) -> LabeledDatasetStatus:
    """Return the status of a run that has stalled for good: as it was, but that an edit may have suspended it."""
    stalled = find(dataset.status.conditions, STALLED)
    if stalled is None or dataset.generation == dataset.status.observed_generation:
        return dataset.status
    phase = Phase.stalled(dataset.status.summary.stage, stalled.reason, stalled.message)
    return presented(dataset, dataset.status, phase, now=now)


def _go_on(dataset: Dataset, wanted: Wanted, observed: Observed, now: datetime, settings: Settings) -> Decision:
    """Return what the present run wants."""
    strays = runs.delete_strays(dataset, observed)
    ledger = dataset.status
    if runs.retry_asked(dataset):  # Nothing is stuck: it is only taken note of.
        ledger = ledger.model_copy(update={"last_handled_retry_at": dataset.retry_at})
    if runs.finished(dataset):
        phase = Phase.published(publish_step.message(ledger))
        return Decision(status=presented(dataset, ledger, phase, now=now), actions=strays)
    if wanted.spec.suspend:
        rests = suspended_run(runs.run_key(dataset), ledger, wanted.spec, observed, now)
        actions = [*strays, *_suspensions(dataset, observed)]
        return Decision(status=presented(dataset, rests.ledger, rests.phase, now=now), actions=actions, plan=rests.plan)
    if (wait := runs.still_stopping(dataset, observed, settings, now)) is not None:
        return _stopping(dataset, ledger, strays, wait, now)

    run = RunPlan(key=runs.run_key(dataset), spec=wanted.spec, settings=settings)
    turn = _turn(run, ledger, observed, now)
    if isinstance(turn, Restart):
        return runs.started_over(dataset, wanted, turn, now)
    turn = watched(dataset, turn, observed, now, settings)
    phase = turn.phase or Phase.published(publish_step.message(turn.ledger))
    return Decision(
        status=presented(dataset, turn.ledger, phase, now=now, pace=observed.pace),
        actions=[*strays, *turn.actions],
        reconcile_after=_next_look(turn, observed, now, settings),
        plan=turn.plan,
    )


def _next_look(turn: StepResult, observed: Observed, now: datetime, settings: Settings) -> float | None:
    """Return when to look again though no event comes: for progress, for pods that are due, for a stall."""
    if turn.phase is None:
        return None
    if any(stage.state == "Running" for stage in turn.ledger.stages):
        return settings.scrape_interval
    begun = {pod.job for pod in observed.pods}
    waiting = [job for job in observed.jobs if not (job.finished or job.suspended) and job.name not in begun]
    if waiting or turn.actions:
        return PODS_DUE.total_seconds() + 1
    due = [pod.starting_since + START_DUE for pod in observed.pods if pod.starting_since is not None]
    looks = [moment for moment in due if moment >= now]
    if (stalls := stalls_at(turn, observed, settings)) is not None:
        looks.append(stalls)
    return max(1.0, (min(looks) - now).total_seconds()) if looks else None


def _turn(run: RunPlan, ledger: LabeledDatasetStatus, observed: Observed, now: datetime) -> StepResult | Restart:
    """Plan, stages, publish: each has its turn when the one before it is done; or why the run starts over."""
    stage_plans: Sequence[StagePlan] = ()
    if not ledger.planned:
        plan = look_at(PLAN, run, observed, now)
        if isinstance(plan, ResultLost):
            return Restart.RESULT_LOST
        if isinstance(plan, InProgress):
            return StepResult(ledger=ledger, actions=plan.actions, phase=plan.phase)
        ledger, stage_plans = planned(ledger, run.spec, plan.outcome), plan.outcome.plan or ()
    stages = replace(advance_stages(run, ledger, observed, now), plan=stage_plans)
    return stages if stages.phase is not None else _publish_turn(run, stages, observed, now)


def _publish_turn(run: RunPlan, stages: StepResult, observed: Observed, now: datetime) -> StepResult | Restart:
    ledger = stages.ledger
    publish = look_at(PUBLISH, run, observed, now)
    if isinstance(publish, ResultLost):
        return Restart.RESULT_LOST
    if isinstance(publish, InProgress) and publish.phase.reason == REASON_INCOMPLETE:
        if ledger.replans < runs.MOST_REPLANS:
            return Restart.WORK_LOST
        return replace(stages, phase=runs.with_replans(publish.phase))
    if isinstance(publish, InProgress):
        return replace(stages, actions=publish.actions, phase=publish.phase)
    return replace(stages, ledger=published(ledger, publish.outcome, publish.at))


def refused(dataset: Dataset, decision: Decision, trouble: Trouble, now: datetime, *, for_good: bool) -> Decision:
    """Return the decision after the API server refused an action: its status is not written.

    The actions before the refused one were done, and are seen at the next look. `for_good`: the same request will be
    refused again, so the run stalls, and the Jobs that it has by now are suspended. Otherwise it stands in line.
    """
    step = decision.status.summary.stage
    if dataset.deleting and trouble.reason == reasons.NAMESPACE_TERMINATING:
        return deletion.abandoned(dataset, "The namespace is being deleted too: no Job can be created in it.", now)
    if for_good:
        phase = Phase.stalled(step, trouble.reason, trouble.message)
        return Decision(status=presented(dataset, dataset.status, phase, now=now), reconcile_after=0)
    phase = Phase.working(step, reasons.QUEUED, trouble.message, queued=trouble)
    return Decision(status=presented(dataset, dataset.status, phase, now=now), reconcile_after=30)


def _stopping(
    dataset: Dataset, ledger: LabeledDatasetStatus, strays: Sequence[Action], wait: timedelta, now: datetime
) -> Decision:
    message = "The pods of the former run finish what they are at and stop; then this run goes on."
    phase = Phase.working("planning", reasons.STOPPING, message)
    status = presented(dataset, ledger, phase, now=now)
    return Decision(status=status, actions=strays, reconcile_after=wait.total_seconds())


def _suspensions(dataset: Dataset, observed: Observed) -> list[Action]:
    """Return what stops the present run's pods, and keeps what they have done."""
    jobs = observed.under_way(dataset.status.attempt)
    # A queued Job's `suspend` is Kueue's, who would set it back. Without the Job, neither pods nor quota are held;
    # it is created anew afterwards, and its workers go on from what the store holds.
    deletions = [DeleteJob(job.name, job.uid, wait=True) for job in jobs if job.queue]
    return [*deletions, *(SuspendJob(job.name, suspend=True) for job in jobs if not job.queue and not job.suspended)]
