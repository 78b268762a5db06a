"""The steps that are one pod each: plan, publish and the clean-up.

Each reports its result in the termination message of its pod. Nothing else of the result is in the cluster, so it must
be in the status before the Job is removed. If the result is lost, the run restarts: the store knows what is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffugen_api.contract import Outcome, Step
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_operator import reasons
from diffugen_operator.manifests import names
from diffugen_operator.manifests.jobs import Manifest, RunPlan, queue_of
from diffugen_operator.manifests.names import RunKey
from diffugen_operator.observed.base import write_time
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.pods import Pod
from diffugen_operator.observed.situation import Situation
from diffugen_operator.policy.actions import Action, CreateJob, CreateWorkOrder
from diffugen_operator.policy.job_state import Active, Failed, Missing, created_phase, job_state
from diffugen_operator.policy.pod_troubles import deadline_message, last_failure
from diffugen_operator.status.conditions import Phase, sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class SinglePodStep:
    """The definition of such a step."""

    step: Step
    shown: str
    """The step's name in the status summary."""
    working: str
    """The reason while it works."""
    message: str
    """The message while it works."""
    failed: str
    """The reason of a failure for which no other reason is known."""
    manifest: Callable[[RunPlan], Manifest]
    """Builds the step's Job."""
    answers: Callable[[Outcome, LabeledDatasetSpec | None], bool]
    """Whether a termination message holds the step's result for this spec; None: the spec is not valid."""
    work_order: Callable[[RunPlan], Manifest] | None = None
    """Builds the run's work order, for the first step of a run; all pods of a run read the same one."""


@dataclass(frozen=True, slots=True)
class InProgress:
    """The step is not done: its phase, and the actions that it needs."""

    phase: Phase
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The step is done, and this is its result."""

    outcome: Outcome
    at: str
    """When it ended."""


@dataclass(frozen=True, slots=True)
class ResultLost:
    """The step is done, but no pod with its result is left."""


StepState = InProgress | Done | ResultLost


def step_state(step: SinglePodStep, run: RunPlan, situation: Situation) -> StepState:
    """Return the state of the step, and what has to be done for it."""
    working = Phase.working(step.shown, step.working, step.message)
    state = job_state(names.job_name(run.key, step.step), working, situation)
    if isinstance(state, Missing):
        work_orders = (CreateWorkOrder(step.work_order(run)),) if step.work_order is not None else ()
        creation = CreateJob(step.manifest(run))
        return InProgress(
            created_phase(creation.name, working, queue_of(run.spec, gpu=False)), (*work_orders, creation)
        )
    if isinstance(state, Active):
        return InProgress(state.phase, state.actions)
    pods = situation.observed.pods_of(state.job)
    if isinstance(state, Failed):
        return InProgress(_failure(step, state, pods))
    return _result(step, run.spec, state.job, pods, situation)


def with_work_order(
    actions: Sequence[Action], phase: Phase | None, order: Callable[[RunPlan], Manifest], run: RunPlan
) -> Sequence[Action]:
    """Return the actions, with the work order before the Jobs that read it: it may have been deleted meanwhile.

    It is also restored where a pod does not start, because the missing ConfigMap may be the cause.
    """
    wanted = any(isinstance(action, CreateJob) for action in actions)
    wanted = wanted or (phase is not None and phase.reason == reasons.PODS_NOT_STARTING)
    if not wanted or any(isinstance(action, CreateWorkOrder) for action in actions):
        return actions
    return (CreateWorkOrder(order(run), probably_exists=True), *actions)


def result_of(step: SinglePodStep, spec: LabeledDatasetSpec | None, key: RunKey, situation: Situation) -> Done | None:
    """Return the result of a step whose Job is complete; None if it is not complete, or the result is lost."""
    job = situation.observed.job(names.job_name(key, step.step))
    if job is None or not job.complete:
        return None
    result = _result(step, spec, job, situation.observed.pods_of(job), situation)
    return result if isinstance(result, Done) else None


def _result(
    step: SinglePodStep, spec: LabeledDatasetSpec | None, job: Job, pods: list[Pod], situation: Situation
) -> StepState:
    ended = [pod.ended for pod in pods if pod.ended is not None and pod.ended.exit_code == 0]
    outcomes = [end.outcome for end in ended if end.outcome is not None]
    if (answer := next((outcome for outcome in outcomes if step.answers(outcome, spec)), None)) is not None:
        return Done(answer, job.completion_time or write_time(situation.now))
    if not ended:
        return ResultLost()
    message = (
        f"A pod of Job {job.name} succeeded but left no result: "
        "is its image a DiffuGen generator of this operator's version?"
    )
    return InProgress(Phase.stalled(step.shown, reasons.NO_OUTCOME, message))


def _failure(step: SinglePodStep, failed: Failed, pods: list[Pod]) -> Phase:
    last = last_failure(pods)
    if failed.failure.reason == reasons.DEADLINE_EXCEEDED:
        return Phase.stalled(step.shown, reasons.DEADLINE_EXCEEDED, deadline_message(failed.job, last))
    if last is None:
        message = sentence(f"Job {failed.job.name} failed: {failed.failure.message}")
        return Phase.stalled(step.shown, step.failed, message)
    return Phase.stalled(step.shown, last.reason or step.failed, last.message)
