"""Reads figures of a namespace from the API server's audit log: numbers of writes by user, and durations.

All times are from the API server: when it received a request, and when it had answered it.
"""

from __future__ import annotations

import bisect
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from devcluster.audit import is_write, user_of
from devcluster.kubeapi import JsonObject

OPERATOR = "operator"
JOB_CONTROLLER = "job-controller"
"""The end of the Job controller's user agent."""


@dataclass(frozen=True)
class Quantiles:
    """A distribution, in seconds."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        """Return the quantiles of at least two values."""
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        return cls(round(cuts[49], 3), round(cuts[94], 3), round(cuts[98], 3))


@dataclass
class Trail:
    """The writes to one namespace."""

    applied: dict[str, float] = field(default_factory=dict)
    """When the API server received each dataset, by name."""
    first_job: dict[str, float] = field(default_factory=dict)
    """When each dataset's first Job was created."""
    finished_jobs: defaultdict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    """When each Job's last status was written, by dataset and Job."""
    status_writes: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When the operator wrote each dataset's status."""
    writes: Counter[str] = field(default_factory=Counter)
    """The operator's writes by verb and resource."""
    refused: Counter[str] = field(default_factory=Counter)
    """The operator's writes that were refused, by code, verb and resource."""

    @classmethod
    def read(cls, events: Iterable[JsonObject], namespace: str) -> Trail:
        """Read the log."""
        trail = cls()
        for event in _of(events, namespace):
            trail._take(event)
        return trail

    def _take(self, event: JsonObject) -> None:
        reference, verb, code = event["objectRef"], event["verb"], event["responseStatus"]["code"]
        resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
        name, done = reference.get("name", ""), _seconds(event["stageTimestamp"])
        if user_of(event) == OPERATOR:
            self.writes[f"{verb} {resource}"] += 1
            if code >= 400:
                self.refused[f"{code} {verb} {resource}"] += 1
        if code >= 400:
            return
        if (verb, resource) == ("create", "labeleddatasets"):
            self.applied[name] = _seconds(event["requestReceivedTimestamp"])
        elif (verb, resource) == ("create", "jobs"):
            self.first_job.setdefault(dataset_of(name), done)
        elif resource == "jobs/status" and event.get("userAgent", "").endswith(JOB_CONTROLLER):
            self.finished_jobs[dataset_of(name)][name] = done
        elif resource == "labeleddatasets/status":
            self.status_writes[name].append(done)

    def apply_to_job(self) -> list[float]:
        """Return the seconds from apply to the first Job, for each dataset."""
        return [self.first_job[name] - applied for name, applied in self.applied.items() if name in self.first_job]

    def job_to_status(self) -> list[float]:
        """Return the seconds from each Job's end to the dataset's status that shows it."""
        waits = []
        for dataset, jobs in self.finished_jobs.items():
            writes = self.status_writes[dataset]
            for ended in jobs.values():
                after = bisect.bisect(writes, ended)
                if after < len(writes):
                    waits.append(writes[after] - ended)
        return waits


def dataset_of(job: str) -> str:
    """Return the dataset of a Job by its name: datasets here are named `d` and a number, without dashes."""
    return job.partition("-")[0]


def _of(events: Iterable[JsonObject], namespace: str) -> Iterator[JsonObject]:
    for event in events:
        if is_write(event) and event.get("objectRef", {}).get("namespace") == namespace and "responseStatus" in event:
            yield event


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
