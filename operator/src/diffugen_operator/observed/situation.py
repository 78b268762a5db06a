"""What a reconcile decides on: the dataset, its Jobs and pods, the time, and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from diffugen_operator.observed.base import Trouble
from diffugen_operator.observed.dataset import Dataset
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.pods import Pod
from diffugen_operator.observed.progress import Pace, Shard
from diffugen_operator.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What exists of one dataset in the cluster."""

    jobs: tuple[Job, ...] = ()
    pods: tuple[Pod, ...] = ()
    shards: Mapping[str, Shard] = field(default_factory=dict)
    """The progress that running pods report for their shards, by pod name."""
    pace: Pace = field(default_factory=Pace)
    queue_reasons: Mapping[str, Trouble] = field(default_factory=dict)
    """Why Jobs wait in Kueue's queues, by Job name, if Kueue can be read."""

    def job(self, name: str) -> Job | None:
        """Return the Job of this name."""
        return next((job for job in self.jobs if job.name == name), None)

    def under_way(self, attempt: int) -> list[Job]:
        """Return an attempt's Jobs that are neither finished nor being deleted."""
        return [job for job in self.jobs if job.attempt == attempt and not job.finished and job.deleting_since is None]

    def pods_of(self, job: Job) -> list[Pod]:
        """Return a Job's pods."""
        return [pod for pod in self.pods if pod.job == job.name]


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that a decision about one dataset depends on."""

    dataset: Dataset
    observed: Observed
    now: datetime
    settings: Settings
