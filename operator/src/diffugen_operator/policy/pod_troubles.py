"""What pods wait for, and what they fail of while their Job tries again: told in the status as it is.

A cause stays shown while its pods come and go: a retry that has just started is no progress yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from diffugen_api.contract import ExitCode
from diffugen_operator import reasons
from diffugen_operator.observed.base import Trouble
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.pods import Ended, Pod
from diffugen_operator.observed.situation import Observed
from diffugen_operator.status.conditions import Phase, cut, sentence

PODS_DUE = timedelta(seconds=60)
"""How long after its Job's creation a first pod should be there."""

START_DUE = timedelta(minutes=2)
"""How long a pod may take from its node to its first container. A large image may well take longer."""

_FINAL = frozenset({ExitCode.DONE, ExitCode.BAD_SPEC, ExitCode.BAD_SHARD, ExitCode.REFUSED})
"""Exit codes after which nothing is tried again."""


def pod_trouble(step: str, job: Job, observed: Observed, now: datetime) -> Phase | None:
    """Return the phase of a Job whose pods do not get on, or None where they do."""
    if job.queue and job.suspended:
        return queued_phase(step, job.name, job.queue, observed.queue_reasons.get(job.name))
    return None if job.failing else _trouble_of_pods(step, job, observed, now)


def _trouble_of_pods(step: str, job: Job, observed: Observed, now: datetime) -> Phase | None:
    pods = observed.pods_of(job)
    live = [pod for pod in pods if pod.ended is None and not pod.evicted]
    stuck = next((trouble for pod in live if (trouble := _stuck(pod)) is not None), None)
    if stuck is not None:
        return Phase.working(step, stuck.reason, stuck.message)
    late = next((pod for pod in live if pod.starting_since is not None and now - pod.starting_since > START_DUE), None)
    if late is not None and not any(pod.running for pod in live):
        return Phase.working(step, reasons.PODS_NOT_STARTING, _not_starting(late.name))
    if (trouble := _failing(pods, live, observed)) is not None:
        return Phase.working(step, trouble.reason, trouble.message)
    unschedulable = next((pod for pod in live if pod.unschedulable), None)
    if unschedulable is not None and not any(pod.running for pod in live):
        queued = Trouble(reason=reasons.UNSCHEDULABLE, message=unschedulable.unschedulable)
        message = f"Pods wait for a node: {unschedulable.unschedulable}"
        return Phase.working(step, reasons.QUEUED, message, queued=queued)
    if not pods and not job.suspended and job.created_at is not None and now - job.created_at > PODS_DUE:
        # Only the Job's Events say why, and the operator may not read those.
        message = (
            f"No pod of Job {job.name} has been created. A quota, pod security or an admission webhook may be "
            f"in the way: `kubectl describe job {job.name}` says which."
        )
        return Phase.working(step, reasons.PODS_NOT_CREATED, message)
    return None


def _stuck(pod: Pod) -> Trouble | None:
    """Return why a pod cannot start, or cannot be seen to end."""
    if not pod.silent_node:
        return pod.waiting
    # The Job controller replaces a pod that it has seen end, and no other: two might write the same shard.
    message = (
        f"Node {pod.silent_node} does not answer, and pod {pod.name} is on it. The run goes on when the node is back; "
        f"where its machine is gone for good, `kubectl delete node {pod.silent_node}` has the pod replaced."
    )
    return Trouble(reason=reasons.NODE_LOST, message=message)


def _not_starting(pod: str) -> str:
    # As above: the kubelet tells its reason in Events only.
    return (
        f"Pod {pod} has a node and does not start. A Secret, ConfigMap or volume that run.podTemplate names may be "
        f"missing, or the image is still being pulled: `kubectl describe pod {pod}` says which."
    )


def queued_phase(step: str, job: str, queue: str, said: Trouble | None = None) -> Phase:
    """Return the phase of a Job that Kueue keeps waiting; `said` is why, where Kueue's own words can be read."""
    if said is not None:
        message = sentence(f"Job {job} waits in Kueue's queue {queue}: {said.message}")
        return Phase.working(step, reasons.QUEUED, message, queued=Trouble(reason=said.reason, message=message))
    message = f"Job {job} waits in Kueue's queue {queue}: it is not admitted yet, or was put back in line."
    return Phase.working(step, reasons.QUEUED, message, queued=Trouble(reason=reasons.NOT_ADMITTED, message=message))


def last_failure(pods: Sequence[Pod]) -> Trouble | None:
    """Return the last failure of these pods, in the worker's words or else the kubelet's."""
    failed = [(pod, pod.ended) for pod in pods if pod.ended is not None and pod.ended.exit_code != 0]
    if failed:
        return _failure_of(*max(failed, key=lambda pair: pair[1].finished_at))
    evicted = next((pod for pod in pods if pod.evicted), None)
    return None if evicted is None else _eviction_of(evicted)


def _failure_of(pod: Pod, ended: Ended) -> Trouble:
    # A worker that was killed after its work was done leaves a word of success: no cause of anything.
    if ended.outcome is not None and not ended.outcome.ok:
        return Trouble(reason=ended.outcome.reason, message=ended.outcome.message)
    if pod.evicted:
        return _eviction_of(pod)
    if ended.reason == "OOMKilled":
        message = (
            f"Pod {pod.name} was killed as it used more memory than its limit (OOMKilled): raise "
            "spec.run.resources.limits.memory (of plan and publish: what run.podTemplate or a LimitRange sets)."
        )
        return Trouble(reason=reasons.OUT_OF_MEMORY, message=message)
    said = f": {cut(ended.message, 300)}" if ended.message else "."
    message = f"Pod {pod.name} ended with exit code {ended.exit_code} ({ended.reason or 'Error'}){said}"
    return Trouble(reason="", message=message)


def _eviction_of(pod: Pod) -> Trouble:
    message = (
        f"Pod {pod.name} was evicted: {sentence(cut(pod.evicted, 300))} If that goes on, ask for what it needs in "
        "spec.run.resources.requests, so that it comes to a node with room."
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
    message = f"{sentence(trouble.message)} Trying again, with growing pauses."
    return Trouble(reason=trouble.reason or reasons.TRYING_AGAIN, message=message)
