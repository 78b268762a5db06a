"""The state machine of a Job, for all steps: missing, active, complete or failed."""

from __future__ import annotations

from dataclasses import dataclass

from diffugen_operator import reasons
from diffugen_operator.observed.base import Trouble
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.situation import Situation
from diffugen_operator.policy.actions import Action, SuspendJob
from diffugen_operator.policy.pod_troubles import pod_trouble, queued_phase
from diffugen_operator.status.conditions import Phase


@dataclass(frozen=True, slots=True)
class Missing:
    """No Job of this name exists."""


@dataclass(frozen=True, slots=True)
class Active:
    """The Job is neither complete nor failed."""

    job: Job
    phase: Phase
    """What the Job is doing, or why its pods make no progress."""
    actions: tuple[Action, ...] = ()
    """Resumes a Job that this operator had suspended."""


@dataclass(frozen=True, slots=True)
class Complete:
    """The Job is complete."""

    job: Job


@dataclass(frozen=True, slots=True)
class Failed:
    """The Job failed, and Kubernetes does not retry it."""

    job: Job
    failure: Trouble
    """The reason and message of the Job's Failed condition."""


JobState = Missing | Active | Complete | Failed


def job_state(name: str, working: Phase, situation: Situation) -> JobState:
    """Return the state of the Job of this name; `working` is its phase while its pods make progress."""
    job = situation.observed.job(name)
    if job is None:
        return Missing()
    if job.complete:
        return Complete(job)
    if job.failure is not None:
        return Failed(job, job.failure)
    if job.deleting_since is not None:
        message = f"Job {name} was deleted. It is created again once it is gone."
        return Active(job, Phase.working(working.step, reasons.FORMER_JOB_STOPPING, message))
    resume = (SuspendJob(name, suspend=False),) if job.suspended and not job.held and not job.queue else ()
    return Active(job, pod_trouble(working.step, job, situation) or working, resume)


def created_phase(name: str, working: Phase, queue: str | None) -> Phase:
    """Return the phase of a Job that is created now: queued if it goes to a Kueue queue."""
    return queued_phase(working.step, name, queue) if queue else working
