"""A dataset's Jobs as values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from diffugen_api.contract import (
    ANNOTATION_PARALLELISM,
    ANNOTATION_SETUP,
    ANNOTATION_SUSPENDED,
    LABEL_ATTEMPT,
    LABEL_QUEUE,
    LABEL_STAGE,
    LABEL_STEP,
    MANAGED_BY,
    Step,
)
from diffugen_operator.manifests.jobs import SETUP
from diffugen_operator.observed.base import Raw, Trouble, read_time, write_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A child Job."""

    name: str
    uid: str
    step: Step | None
    stage: str
    attempt: int
    created_at: datetime | None
    started_at: datetime | None
    """When it began, or was resumed last; None if it did not, or the Job controller has not noticed it yet."""
    was_suspended: bool
    """Whether the Job controller has noticed that it is, or was, suspended."""
    deleting_since: datetime | None
    queue: str
    """The Kueue queue in which it was created; Kueue alone suspends, resumes and resizes it then."""
    setup: str
    """A hash of the parts of the spec that it was built from (`jobs.setup_of`); empty if its creator set none."""
    run_parallelism: int | None
    """`run.parallelism` when it was created in a queue."""
    suspended: bool
    suspended_by_us: bool
    """Whether the operator suspended it, by its own mark; for a Job of an operator that set no marks, by the API
    server's record. Any other suspension is somebody else's."""
    held_by: str
    """Who else suspended it last, by the API server's record; empty if that is not known, as where a webhook did."""
    parallelism: int
    failed_pods: int
    completed_indexes: str
    failed_indexes: str
    complete: bool
    failing: bool
    """Whether it is about to fail: its pods are being stopped and not retried."""
    failure: Trouble | None
    """The Job's Failed condition."""
    completion_time: str | None
    order_sha256: str
    """The work order that its pods accept."""

    @property
    def held(self) -> bool:
        """Whether somebody else keeps it suspended: Kueue, for a Job in a queue or not, or a person."""
        return self.suspended and not self.suspended_by_us

    @property
    def pods_due_since(self) -> datetime | None:
        """Since when it should have pods; None if it should not have any."""
        if self.suspended or (self.started_at is None and self.was_suspended):
            return None
        return self.started_at or self.created_at

    @property
    def finished(self) -> bool:
        """Whether none of its pods will run again."""
        return self.complete or self.failure is not None

    @classmethod
    def read(cls, raw: Raw) -> Self:
        """Read the API object."""
        metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
        labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
        setup, suspender = annotations.get(ANNOTATION_SETUP, ""), spec.get("suspendedBy") or ""
        step = labels.get(LABEL_STEP, "")
        attempt = labels.get(LABEL_ATTEMPT, "")
        failed = _condition(status, "Failed")
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            step=Step(step) if step in set(Step) else None,
            stage=labels.get(LABEL_STAGE, ""),
            attempt=int(attempt) if attempt.isdigit() else 0,
            created_at=read_time(metadata.get("creationTimestamp")),
            started_at=read_time(status.get("startTime")),
            was_suspended=_condition(status, "Suspended") is not None,
            deleting_since=read_time(metadata.get("deletionTimestamp")),
            queue=labels.get(LABEL_QUEUE, ""),
            run_parallelism=_number(annotations.get(ANNOTATION_PARALLELISM)),
            setup=setup,
            suspended=bool(spec.get("suspend")),
            # The record of a present Job proves nothing: if a webhook suspends a Job at its creation, it names the
            # creator, and its time is that of the creator's last change.
            suspended_by_us=annotations.get(ANNOTATION_SUSPENDED) == "true"
            or (suspender == MANAGED_BY and not setup.startswith(SETUP)),
            held_by="" if suspender == MANAGED_BY else suspender,
            parallelism=1 if spec.get("parallelism") is None else spec["parallelism"],
            failed_pods=status.get("failed") or 0,
            completed_indexes=status.get("completedIndexes") or "",
            failed_indexes=status.get("failedIndexes") or "",
            complete=_condition(status, "Complete") is not None,
            failing=_condition(status, "FailureTarget") is not None,
            failure=Trouble(reason=failed.get("reason", ""), message=failed.get("message", "")) if failed else None,
            completion_time=_time_of(status.get("completionTime")),
            order_sha256=spec.get("order") or "",
        )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch("[0-9]{1,6}", text) else None


def _time_of(text: str | None) -> str | None:
    """Return a timestamp in the form of the API; None if the value is not a timestamp."""
    moment = read_time(text)
    return None if moment is None else write_time(moment)


def _condition(status: Raw, kind: str) -> Raw | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == kind and condition.get("status") == "True":
            found: Raw = condition
            return found
    return None
