"""What a reconcile can decide to do, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from diffugen_api.contract import StagePlan
from diffugen_api.v1alpha1 import LabeledDatasetStatus
from diffugen_operator.status.conditions import Phase


@dataclass(frozen=True, slots=True)
class CreateWorkOrder:
    """Create the ConfigMap with the run's work order; one of this run that exists already is kept."""

    manifest: dict[str, Any]
    probably_exists: bool = False
    """An earlier step of the run created it, so it is read first, and created only if somebody deleted it."""

    @property
    def name(self) -> str:
        """The ConfigMap's name."""
        return str(self.manifest["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class DeleteWorkOrder:
    """Delete the ConfigMap of a former run."""

    name: str


@dataclass(frozen=True, slots=True)
class CreateJob:
    """Create a Job; one of this run that exists already is kept."""

    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """The Job's name."""
        return str(self.manifest["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class SuspendJob:
    """Set a Job's spec.suspend."""

    name: str
    suspend: bool


@dataclass(frozen=True, slots=True)
class ResizeJob:
    """Set a Job's spec.parallelism."""

    name: str
    parallelism: int


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete a Job; with `wait`, it stays visible until its pods are gone."""

    name: str
    uid: str
    wait: bool


@dataclass(frozen=True, slots=True)
class SetFinalizer:
    """Add our finalizer to the dataset, or remove it.

    The status is not written in the same reconcile, because this changes the object.
    """

    present: bool


Action = SetFinalizer | CreateWorkOrder | DeleteWorkOrder | CreateJob | SuspendJob | ResizeJob | DeleteJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do, and the status to write once it is done."""

    status: LabeledDatasetStatus
    actions: Sequence[Action] = ()
    reconcile_after: float | None = None
    """Reconcile again after so many seconds even if no event arrives; None if events are enough."""
    plan: Sequence[StagePlan] = ()
    """The result of the plan step, if it has just ended. It is announced once and is not part of the status."""
    warnings: Sequence[str] = ()
    """All warnings of that plan: a status that is too long has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The result of evaluating one step of a run: its actions, the updated ledger, and its phase.

    No phase means that the step is done and the next one follows.
    """

    ledger: LabeledDatasetStatus
    actions: Sequence[Action] = field(default_factory=tuple)
    phase: Phase | None = None
    plan: Sequence[StagePlan] = ()
    warnings: Sequence[str] = ()
