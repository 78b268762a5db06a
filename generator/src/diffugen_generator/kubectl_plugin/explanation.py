"""Why a dataset is not ready, and what to do next: from its conditions, Jobs, pods, Workloads and Events.

Pure: what was read goes in, findings come out, the most telling first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from diffugen_generator.kubectl_plugin.progress_table import duration, state_of

Json = dict[str, Any]

_LONGEST_EVENT = 300
_MOST_EVENTS = 3
_LOOK_AT_QUEUE = {
    "Unschedulable": "kubectl describe nodes",
    "QuotaExceeded": "kubectl describe resourcequota",
    "Forbidden": "give the operator the rights of its chart: helm upgrade, or kubectl apply -k deploy/",
}
"""What to do by the reason of Queued; otherwise it is Kueue's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """A dataset and what belongs to it, as the API server has it."""

    dataset: Json
    jobs: Sequence[Json] = ()
    pods: Sequence[Json] = ()
    workloads: Sequence[Json] = ()
    """Kueue's, of the dataset's Jobs; empty where Kueue is not installed or may not be read."""
    events: Sequence[Json] = field(default=())
    """Of the namespace."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, and the next thing to do about it; empty where there is nothing to do."""

    what: str
    todo: str = ""


def explain(found: Surroundings) -> list[Finding]:
    """Return what keeps the dataset from being ready; at least one finding."""
    dataset = found.dataset
    name, status = dataset["metadata"]["name"], dataset.get("status", {})
    if "deletionTimestamp" in dataset["metadata"]:
        todo = f"kubectl get jobs --selector=diffugen.dev/dataset={name}"
        return [Finding(f"{name} is being deleted: {_ready(status)}", todo)]
    if status.get("observedGeneration", -1) != dataset["metadata"]["generation"]:
        return [
            Finding(
                "No operator has seen this spec yet: none runs, none leads, or it serves other namespaces.",
                "kubectl get pods --all-namespaces -l app.kubernetes.io/part-of=diffugen",
            )
        ]
    if state_of(dataset) == "Succeeded":
        return [Finding(f"It is published: {_ready(status)}", _how_to_open(dataset))]
    findings = [*_conditions(name, status), *_workloads(found), *_pods(found), *_jobs(found), *_events(found)]
    return findings or [Finding(f"It is running: {_running(status)}", f"kubectl labeleddataset status {name} --watch")]


def _how_to_open(dataset: Json) -> str:
    """Return the command that shows the report; the plugin does not know the operator's default store."""
    if dataset["spec"].get("output", {}).get("s3") is not None:
        return f"kubectl labeleddataset open {dataset['metadata']['name']}"
    return (
        f"diffugen view {dataset['status']['dataset']['uri']} --endpoint URL, with the operator's default store as URL"
    )


def _ready(status: Json) -> str:
    return next((str(c.get("message", "")) for c in status.get("conditions", []) if c["type"] == "Ready"), "")


def _running(status: Json) -> str:
    summary = status.get("summary", {})
    left = duration(summary.get("etaSeconds"))
    parts = [summary.get("progress", ""), summary.get("stage", ""), f"about {left} left" if left else ""]
    return ", ".join(part for part in parts if part) or _ready(status)


def _conditions(name: str, status: Json) -> Iterator[Finding]:
    true = {c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"}
    if (stalled := true.get("Stalled")) is not None:
        todo = f"fix what it names, then: kubectl labeleddataset retry {name}"
        yield Finding(f"It is stalled, {stalled['reason']}: {stalled['message']}", todo)
    if "Suspended" in true:
        yield Finding("It is suspended: spec.suspend is true.", f"kubectl labeleddataset resume {name}")
    if (queued := true.get("Queued")) is not None:
        todo = _LOOK_AT_QUEUE.get(queued["reason"], "kubectl get localqueues,clusterqueues")
        yield Finding(f"It waits in line, {queued['reason']}: {queued['message']}", todo)


def _workloads(found: Surroundings) -> Iterator[Finding]:
    owned = {job["metadata"]["uid"]: job["metadata"]["name"] for job in found.jobs}
    for workload in found.workloads:
        owners = [owner["uid"] for owner in workload["metadata"].get("ownerReferences", [])]
        job = next((owned[uid] for uid in owners if uid in owned), None)
        conditions = {c["type"]: c for c in workload.get("status", {}).get("conditions", [])}
        if job is None or conditions.get("Finished", {}).get("status") == "True":
            continue
        quota = conditions.get("QuotaReserved", {})
        if quota.get("status") == "False":
            queue = workload.get("spec", {}).get("queueName", "")
            todo = f"kubectl describe localqueue {queue}".rstrip()
            yield Finding(f"Kueue has not admitted Job {job}: {quota.get('message', '')}", todo)


def _pods(found: Surroundings) -> Iterator[Finding]:
    for pod in found.pods:
        name, status = pod["metadata"]["name"], pod.get("status", {})
        for condition in status.get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                yield Finding(
                    f"No node takes pod {name}: {condition.get('message', '')}", f"kubectl describe pod {name}"
                )
        for container in status.get("containerStatuses", []):
            state = container.get("state", {})
            waiting, ended = state.get("waiting", {}), state.get("terminated", {})
            if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                what = f"Pod {name} cannot start, {waiting['reason']}: {waiting.get('message', '')}"
                yield Finding(what, f"kubectl describe pod {name}")
            if ended.get("exitCode", 0):
                what = f"Pod {name} ended with exit code {ended['exitCode']} ({ended.get('reason', '')})."
                yield Finding(what, f"kubectl logs {name} -c {container['name']}")


def _jobs(found: Surroundings) -> Iterator[Finding]:
    with_pods = {pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name") for pod in found.pods}
    for job in found.jobs:
        name, spec = job["metadata"]["name"], job.get("spec", {})
        over = any(
            c["type"] in ("Complete", "Failed") and c["status"] == "True"
            for c in job.get("status", {}).get("conditions", [])
        )
        if not over and not spec.get("suspend") and name not in with_pods:
            yield Finding(f"Job {name} has no pod.", f"kubectl describe job {name}")


def _events(found: Surroundings) -> Iterator[Finding]:
    """Yield the latest warnings about the dataset and what belongs to it, without those that a condition repeats."""
    shown = {str(c.get("message", "")) for c in found.dataset.get("status", {}).get("conditions", [])}
    uids = {obj["metadata"].get("uid") for obj in (found.dataset, *found.jobs, *found.pods)}
    about = [
        event
        for event in found.events
        if event.get("type") == "Warning"
        and event.get("involvedObject", {}).get("uid") in uids
        and event.get("message") not in shown
    ]
    about.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""), reverse=True)
    for event in about[:_MOST_EVENTS]:
        kind, name = event["involvedObject"]["kind"], event["involvedObject"]["name"]
        message = str(event.get("message", ""))[:_LONGEST_EVENT]
        yield Finding(
            f"{event.get('reason', 'Warning')} of {kind} {name}: {message}", f"kubectl describe {kind.lower()} {name}"
        )
