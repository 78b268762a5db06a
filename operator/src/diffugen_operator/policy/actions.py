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
    """Create the run's ConfigMap, or take the one that is there."""

    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeleteWorkOrder:
    """Delete a former run's ConfigMap."""

    name: str


@dataclass(frozen=True, slots=True)
class CreateJob:
    """Create a Job, or take the one that is there if it is ours."""

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
    """Delete a Job of a former run; with `wait`, it stays visible until its pods are gone."""

    name: str
    uid: str
    wait: bool


@dataclass(frozen=True, slots=True)
class SetFinalizer:
    """Put our finalizer on the dataset, or take it off. The status is not written beside it: the object changes."""

    present: bool


Action = SetFinalizer | CreateWorkOrder | DeleteWorkOrder | CreateJob | SuspendJob | ResizeJob | DeleteJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do, and the status to write once it is done."""

    status: LabeledDatasetStatus
    actions: Sequence[Action] = ()
    reconcile_after: float | None = None
    """Reconcile again after so many seconds, even if nothing is heard; None where events suffice."""
    plan: Sequence[StagePlan] = ()
    """What the plan step found, where it has just ended: told once, and no part of the status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step of the run wants: its actions, the ledger as it stands then, and what is seen.

    No phase means that the step is done and the next one's turn has come.
    """

    ledger: LabeledDatasetStatus
    actions: Sequence[Action] = field(default_factory=tuple)
    phase: Phase | None = None
    plan: Sequence[StagePlan] = ()
