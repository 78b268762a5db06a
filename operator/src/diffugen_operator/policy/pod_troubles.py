"""Why pods wait, and why they fail while their Job tries again.

A cause stays reported while pods come and go: a retry that has just started is no progress yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from diffugen_api.contract import ExitCode
from diffugen_operator import reasons
from diffugen_operator.observed.base import Trouble
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.pods import Ended, Pod
from diffugen_operator.observed.situation import Observed, Situation
from diffugen_operator.status.conditions import Phase, cut, sentence

PODS_DUE = timedelta(seconds=60)
"""How long after a Job's creation, or after it was resumed, its first pod should exist."""

START_DUE = timedelta(minutes=2)
"""How long a pod may take from being scheduled to its first container. A large image may take longer."""

END_DUE = timedelta(seconds=30)
"""How long a pod's other containers may run after its generator has ended."""

_FINAL = frozenset({ExitCode.DONE, ExitCode.BAD_SPEC, ExitCode.BAD_SHARD, ExitCode.REFUSED})
"""Exit codes after which Kubernetes does not try again."""


def pod_trouble(step: str, job: Job, situation: Situation) -> Phase | None:
    """Return the phase of a Job whose pods make no progress; None if they do."""
    reported = situation.observed.queue_reasons.get(job.name)
    if job.queue and job.suspended:
        return queued_phase(step, job.name, job.queue, reported)
    if job.held:
        return _held_phase(step, job, reported)
    return None if job.failing else _trouble_of_pods(step, job, situation)


def _trouble_of_pods(step: str, job: Job, situation: Situation) -> Phase | None:
    observed, now = situation.observed, situation.now
    pods = observed.pods_of(job)
    live = [pod for pod in pods if pod.ended is None and not pod.evicted]
    if (trouble := _blocked(pods, live, now) or _failing(pods, live, observed)) is not None:
        return Phase.working(step, trouble.reason, trouble.message)
    unschedulable = next((pod for pod in live if pod.unschedulable), None)
    if unschedulable is not None and not any(pod.running for pod in live):
        queued = Trouble(reason=reasons.UNSCHEDULABLE, message=unschedulable.unschedulable)
        message = f"Pods wait for a node: {unschedulable.unschedulable}"
        return Phase.working(step, reasons.QUEUED, message, queued=queued)
    if not pods and job.pods_due_since is not None and now - job.pods_due_since > PODS_DUE:
        # Only the Job's Events give the cause, and the operator has no right to read them.
        message = (
            f"No pod of Job {job.name} has been created. A quota, pod security or an admission webhook may "
            f"prevent it: `kubectl describe job {job.name}` shows the cause."
        )
        return Phase.working(step, reasons.PODS_NOT_CREATED, message)
    return None


def _blocked(pods: Sequence[Pod], live: Sequence[Pod], now: datetime) -> Trouble | None:
    """Return why a pod can neither start nor end."""
    stuck = next((trouble for pod in live if (trouble := _stuck(pod)) is not None), None)
    if stuck is not None:
        return stuck
    late = next((pod for pod in live if pod.starting_since is not None and now - pod.starting_since > START_DUE), None)
    if late is not None and not any(pod.running for pod in live):
        return Trouble(reason=reasons.PODS_NOT_STARTING, message=_not_starting(late.name))
    lingering = next((pod for pod in pods if (due := ends_at(pod)) is not None and now > due), None)
    if lingering is not None:
        return Trouble(reason=reasons.CONTAINER_STILL_RUNNING, message=_still_running(lingering))
    return None


def _stuck(pod: Pod) -> Trouble | None:
    """Return why a pod cannot start, or why its end cannot be observed."""
    if not pod.silent_node:
        return pod.waiting
    # The Job controller replaces a pod only after it saw the pod end: otherwise two pods could write the same shard.
    message = (
        f"Node {pod.silent_node} does not answer, and pod {pod.name} is on it. The run goes on when the node is back; "
        f"if its machine will not come back, `kubectl delete node {pod.silent_node}` lets the pod be replaced."
    )
    return Trouble(reason=reasons.NODE_LOST, message=message)


def ends_at(pod: Pod) -> datetime | None:
    """Return when a pod whose generator has ended should have ended too; None if nothing of it runs any longer."""
    return None if pod.lingers_since is None else pod.lingers_since + END_DUE


def _still_running(pod: Pod) -> str:
    names = ", ".join(pod.still_running[:3])
    return (
        f"The generator of pod {pod.name} has ended, but the pod does not: container {names} still runs. Let it end "
        "with the generator: as a native sidecar, an init container with restartPolicy Always, Kubernetes ends it. In "
        "run.podTemplate, one needs the operator's --pod-template-policy any (chart: settings.podTemplatePolicy: any)."
    )


def _not_starting(pod: str) -> str:
    # As above: the kubelet reports its reason in Events only.
    return (
        f"Pod {pod} is scheduled but does not start. A Secret, ConfigMap or volume that run.podTemplate names may be "
        f"missing, or the image is still being pulled: `kubectl describe pod {pod}` shows the cause."
    )


def queued_phase(step: str, job: str, queue: str, reported: Trouble | None = None) -> Phase:
    """Return the phase of a Job that waits in a Kueue queue; `reported` is Kueue's reason, if it can be read."""
    if reported is not None:
        message = sentence(f"Job {job} waits in Kueue's queue {queue}: {reported.message}")
        return Phase.working(step, reasons.QUEUED, message, queued=Trouble(reason=reported.reason, message=message))
    message = f"Job {job} waits in Kueue's queue {queue}: it is not admitted yet, or was evicted."
    return Phase.working(step, reasons.QUEUED, message, queued=Trouble(reason=reasons.NOT_ADMITTED, message=message))


def _held_phase(step: str, job: Job, reported: Trouble | None) -> Phase:
    """Return the phase of a Job without a queue that somebody else suspended; it is not resumed against them."""
    if reported is not None:
        message = sentence(f"Kueue holds Job {job.name}, which has no queue: {reported.message}")
        return Phase.working(step, reasons.QUEUED, message, queued=Trouble(reason=reported.reason, message=message))
    who = f"by {job.held_by}" if job.held_by else "but not by this operator (Kueue may hold Jobs without a queue)"
    message = (
        f"Job {job.name} is suspended {who}. It continues when it is resumed; with Kueue, "
        "spec.run.queueName puts it into a queue."
    )
    return Phase.working(step, reasons.QUEUED, message, queued=Trouble(reason=reasons.JOB_HELD, message=message))


def last_failure(pods: Sequence[Pod]) -> Trouble | None:
    """Return the last failure of these pods, as the worker reported it, else as the kubelet did."""
    failed = [(pod, pod.ended) for pod in pods if pod.ended is not None and pod.ended.exit_code != 0]
    if failed:
        return _failure_of(*max(failed, key=lambda pair: pair[1].finished_at))
    evicted = next((pod for pod in pods if pod.evicted), None)
    return None if evicted is None else _eviction_of(evicted)


def _failure_of(pod: Pod, ended: Ended) -> Trouble:
    # A worker that was killed after its work was done leaves a termination message of success, which is not a cause.
    if ended.outcome is not None and not ended.outcome.ok:
        return Trouble(reason=ended.outcome.reason, message=ended.outcome.message)
    if pod.evicted:
        return _eviction_of(pod)
    if ended.reason == "OOMKilled":
        message = (
            f"Pod {pod.name} was killed because it used more memory than its limit (OOMKilled): raise "
            "spec.run.resources.limits.memory (of plan and publish: what run.podTemplate or a LimitRange sets)."
        )
        return Trouble(reason=reasons.OUT_OF_MEMORY, message=message)
    reported = f": {cut(ended.message, 300)}" if ended.message else "."
    message = f"Pod {pod.name} ended with exit code {ended.exit_code} ({ended.reason or 'Error'}){reported}"
    return Trouble(reason="", message=message)


def _eviction_of(pod: Pod) -> Trouble:
    message = (
        f"Pod {pod.name} was evicted: {sentence(cut(pod.evicted, 300))} If that repeats, request what it needs in "
        "spec.run.resources.requests, so that it is scheduled to a node with room."
    )
    return Trouble(reason=reasons.EVICTED, message=message)


def _failing(pods: Sequence[Pod], live: Sequence[Pod], observed: Observed) -> Trouble | None:
    over = {pod.index for pod in pods if pod.ended is not None and pod.ended.exit_code in _FINAL}
    failed = [pod for pod in pods if (pod.ended is not None or pod.evicted) and pod.index not in over]
    indexes = {pod.index for pod in failed}
    for pod in live:
        shard = observed.shards.get(pod.name)
        if pod.index not in indexes or (shard is not None and shard.done > 0):
            return None
    trouble = last_failure(failed)
    if trouble is None:
        return None
    message = f"{sentence(trouble.message)} Retrying, with growing pauses."
    return Trouble(reason=trouble.reason or reasons.TRYING_AGAIN, message=message)


def deadline_message(job: Job, last: Trouble | None) -> str:
    """Return the message of a Job that exceeded `run.activeDeadlineSeconds`; `last` is its last failure."""
    message = (
        f"Job {job.name} was active longer than spec.run.activeDeadlineSeconds: raise or remove it, and the run "
        "goes on from what the store holds."
    )
    return f"{message} Its last failure: {last.message}" if last is not None else message
