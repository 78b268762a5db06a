"""What changed between two statuses: what is written at once, and what is announced by an Event.

Changes of numbers and wording may wait: progress is written every few seconds at most. A change of state is written at
once, and announced by one Event after it was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from diffugen_api.contract import StagePlan
from diffugen_api.v1alpha1 import LabeledDatasetStatus
from diffugen_operator import reasons
from diffugen_operator.policy import publish_step
from diffugen_operator.status.conditions import QUEUED, READY, RECONCILING, STALLED, SUSPENDED, find

_START, _PLAN, _STAGES, _PUBLICATION, _STATE = 1, 2, 10, 90, 95


@dataclass(frozen=True, slots=True)
class Announcement:
    """An Event to be posted."""

    reason: str
    message: str
    warning: bool = False
    order: int = 0
    """Its place among the Events of the same second: the order of a run, from its start to its publication."""


def is_transition(old: LabeledDatasetStatus, new: LabeledDatasetStatus) -> bool:
    """Whether more has changed than numbers and wording."""
    return _states(old) != _states(new)


def images_between(old: LabeledDatasetStatus, new: LabeledDatasetStatus) -> int:
    """Return how many images were drawn from `old` to `new`; deciding labels again draws none."""
    former = {stage.name: stage.samples.done for stage in old.stages} if old.attempt == new.attempt else {}
    return sum(
        max(0, stage.samples.done - former.get(stage.name, stage.samples.reused)) for stage in new.stages if stage.gpu
    )


_SOON: Mapping[str, str] = {reasons.ACCEPTED: reasons.PLANNING}
"""Reasons that another follows in a moment: the change is no transition, so it is written with the next one."""


def _states(status: LabeledDatasetStatus) -> tuple[object, ...]:
    return (
        (status.observed_generation, status.revision, status.store, status.attempt, status.planned),
        status.last_handled_retry_at,
        [(c.type, c.status, _SOON.get(c.reason, c.reason)) for c in status.conditions],
        [(stage.name, stage.state) for stage in status.stages],
        status.summary.stage,
        status.dataset,
    )


def announcements(
    old: LabeledDatasetStatus,
    new: LabeledDatasetStatus,
    plan: Sequence[StagePlan] = (),
    *,
    warnings: Sequence[str] = (),
    unreadable: Sequence[str] = (),
) -> Iterator[Announcement]:
    """Yield the Events about the change from `old` to `new`; `plan` is the plan step's result if it has just ended.

    `warnings`: those of that plan; `new` lacks them if it is too long. `unreadable`: the fields that were in the place
    of `old`, and that could not be read.
    """
    if unreadable:
        yield _replaced(unreadable)
    why = find(new.conditions, RECONCILING)
    message = why.message if why is not None else ""
    if new.clean_up_start_time is not None:
        yield from _clean_up(old, new, message)
    elif new.attempt != old.attempt:
        said = f"Attempt {new.attempt}, revision {new.revision}: {message}"
        yield Announcement(reasons.RUN_STARTED, said, order=_START)
    if new.planned and not (old.planned and old.attempt == new.attempt):
        yield Announcement(reasons.PLANNED, _planned(plan), order=_PLAN)
        for warning in warnings:
            yield Announcement(reasons.PLAN_WARNING, warning, warning=True, order=_PLAN + 1)
    yield from _stages(old, new)
    if new.dataset is not None and new.dataset != old.dataset:
        yield Announcement(reasons.PUBLISHED, publish_step.message(new), order=_PUBLICATION)
    yield from _conditions(old, new)


def _replaced(unreadable: Sequence[str]) -> Announcement:
    shown = ", ".join(unreadable[:3]) + (f" and {len(unreadable) - 3} more" if len(unreadable) > 3 else "")
    message = (
        f"{shown} has a value that this version of the operator cannot read, as one that a later version wrote. It is "
        "replaced: what it said is found out again."
    )
    return Announcement(reasons.STATUS_UNREADABLE, message, warning=True)


def _clean_up(old: LabeledDatasetStatus, new: LabeledDatasetStatus, message: str) -> Iterator[Announcement]:
    if new.attempt != old.attempt:
        yield Announcement(reasons.CLEANING_UP, message, order=_START)
    elif new.summary.reason == reasons.CLEANED_UP != old.summary.reason:
        yield Announcement(reasons.CLEANED_UP, message, order=_PUBLICATION)


def _planned(plan: Sequence[StagePlan]) -> str:
    total, draw = sum(stage.total for stage in plan), sum(stage.draw for stage in plan)
    relabel, reused = sum(stage.relabel for stage in plan), sum(stage.reused for stage in plan)
    shards = sum(stage.shards for stage in plan)
    return f"{total} samples: {draw} to draw, {relabel} to label again, {reused} complete; {shards} shards."


def _stages(old: LabeledDatasetStatus, new: LabeledDatasetStatus) -> Iterator[Announcement]:
    former = {stage.name: stage.state for stage in old.stages} if old.attempt == new.attempt else {}
    for place, stage in enumerate(new.stages):
        order = _STAGES + 2 * place
        before = former.get(stage.name, "Pending")
        if stage.state == before or stage.shards.total == 0:
            continue
        if stage.state in ("Running", "Queued") and before == "Pending":
            message = f"Stage {stage.name}: Job {stage.job} with {stage.shards.total} shards."
            yield Announcement(reasons.STAGE_STARTED, message, order=order)
        elif stage.state == "Succeeded":
            said = f"Stage {stage.name}: {stage.samples.done} samples."
            yield Announcement(reasons.STAGE_SUCCEEDED, said, order=order + 1)
        elif stage.state == "Failed":
            said = f"Stage {stage.name}: {stage.message}"
            yield Announcement(reasons.STAGE_FAILED, said, warning=True, order=order + 1)


def _conditions(old: LabeledDatasetStatus, new: LabeledDatasetStatus) -> Iterator[Announcement]:
    for kind in (STALLED, QUEUED, SUSPENDED):
        condition, before = find(new.conditions, kind), find(old.conditions, kind)
        if condition is not None and (before is None or before.reason != condition.reason):
            yield Announcement(condition.reason, condition.message, warning=kind == STALLED, order=_STATE)
        if kind == SUSPENDED and condition is None and before is not None:
            yield Announcement(reasons.RESUMED, "spec.suspend is no longer true.", order=_STATE)
    trouble = _trouble(new)
    if trouble is not None and trouble != _trouble(old):
        ready = next(c for c in new.conditions if c.type == READY)
        yield Announcement(trouble, ready.message, warning=True, order=_STATE)


_ORDINARY = frozenset(
    {
        reasons.ACCEPTED,
        reasons.PLANNING,
        reasons.DRAWING,
        reasons.LABELING,
        reasons.PUBLISHING,
        reasons.STOPPING,
        reasons.FORMER_JOB_STOPPING,
        reasons.QUEUED,
        reasons.SUSPENDED,
        reasons.CLEANING_UP,
        reasons.CLEANED_UP,
    }
)


def _trouble(status: LabeledDatasetStatus) -> str | None:
    """Return the reason of a run that keeps trying after a problem; None if there is no problem."""
    reconciling = find(status.conditions, RECONCILING)
    return reconciling.reason if reconciling is not None and reconciling.reason not in _ORDINARY else None
