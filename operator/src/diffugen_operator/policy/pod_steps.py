"""The steps that are one pod each: plan, publish and the clean-up.

Each ends with a word of what it did (its termination message). That word is the only thing a step leaves in
the cluster, so it has to be in the status before its Job is collected. Where it is lost, the run starts
over: the store knows what is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from diffugen_api.contract import Outcome, Step
from diffugen_operator import reasons
from diffugen_operator.manifests import names
from diffugen_operator.manifests.jobs import Manifest, RunPlan
from diffugen_operator.manifests.names import RunKey
from diffugen_operator.observed.base import Trouble, write_time
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.pods import Pod
from diffugen_operator.observed.situation import Observed
from diffugen_operator.policy.actions import Action, CreateJob, CreateWorkOrder, SuspendJob
from diffugen_operator.policy.pod_troubles import last_failure, pod_trouble, queued_phase
from diffugen_operator.status.conditions import Phase, sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class SinglePodStep:
    """What there is to know of such a step."""

    step: Step
    shown: str
    """The step's name in the summary."""
    working: str
    """The reason while it works."""
    message: str
    failed: str
    """The reason where it fails without a reason of its own."""
    manifest: Callable[[RunPlan], Manifest]
    answers: Callable[[Outcome], bool]
    """Whether a pod's last word holds the step's result."""
    order: Callable[[RunPlan], Manifest] | None = None
    """The order that it brings along, as the first step of its run; all pods of a run read one order."""


@dataclass(frozen=True, slots=True)
class InProgress:
    """The step is not done: what it wants, and what is seen."""

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
    """The step is done, but nothing is left of its result."""


def look_at(step: SinglePodStep, run: RunPlan, observed: Observed, now: datetime) -> InProgress | Done | ResultLost:
    """Return where the step stands, and what it wants."""
    working = Phase.working(step.shown, step.working, step.message)
    job = observed.job(names.job_name(run.key, step.step))
    if job is None:
        orders = (CreateWorkOrder(step.order(run)),) if step.order is not None else ()
        creation = CreateJob(step.manifest(run))
        queue = run.spec.run.queue_name
        phase = queued_phase(step.shown, creation.name, queue) if queue else working
        return InProgress(phase, (*orders, creation))
    if job.failure is not None:
        return InProgress(_failure(step, job, observed.pods_of(job)))
    if job.complete:
        return _result(step, job, observed.pods_of(job), now)
    if job.deleting_since is not None:
        message = f"Job {job.name} was deleted; it is created anew once it is gone."
        return InProgress(Phase.working(step.shown, reasons.FORMER_JOB_STOPPING, message))
    resume = (SuspendJob(job.name, suspend=False),) if job.suspended and not job.queue else ()
    return InProgress(pod_trouble(step.shown, job, observed, now) or working, resume)


def result_of(step: SinglePodStep, key: RunKey, observed: Observed, now: datetime) -> Done | None:
    """Return the word of a step that is done, where there is one; of one that is not done, nothing is wanted."""
    job = observed.job(names.job_name(key, step.step))
    if job is None or not job.complete:
        return None
    result = _result(step, job, observed.pods_of(job), now)
    return result if isinstance(result, Done) else None


def _result(step: SinglePodStep, job: Job, pods: list[Pod], now: datetime) -> InProgress | Done | ResultLost:
    ended = [pod.ended for pod in pods if pod.ended is not None and pod.ended.exit_code == 0]
    outcomes = [end.outcome for end in ended if end.outcome is not None]
    if (answer := next((outcome for outcome in outcomes if step.answers(outcome)), None)) is not None:
        return Done(answer, job.completion_time or write_time(now))
    if not ended:
        return ResultLost()
    message = (
        f"A pod of Job {job.name} ended well but left no result: "
        "is its image a DiffuGen generator of this operator's version?"
    )
    return InProgress(Phase.stalled(step.shown, reasons.NO_OUTCOME, message))


def _failure(step: SinglePodStep, job: Job, pods: list[Pod]) -> Phase:
    trouble = last_failure(pods)
    said = job.failure.message if job.failure is not None else ""
    if job.failure is not None and job.failure.reason == reasons.DEADLINE_EXCEEDED:
        return Phase.stalled(step.shown, reasons.DEADLINE_EXCEEDED, deadline_message(job, trouble))
    if trouble is None:
        return Phase.stalled(step.shown, step.failed, sentence(f"Job {job.name} failed: {said}"))
    return Phase.stalled(step.shown, trouble.reason or step.failed, trouble.message)


def deadline_message(job: Job, last: Trouble | None) -> str:
    """Return what a Job says that ran longer than it may."""
    message = (
        f"Job {job.name} was active longer than spec.run.activeDeadlineSeconds: raise or remove it, and the run "
        "goes on from what the store holds."
    )
    return f"{message} Its last failure: {last.message}" if last is not None else message
