"""The state of a dataset, as conditions that follow the rules of kstatus.

`Ready` is always present. `Reconciling`, `Stalled`, `Queued` and `Suspended` are present only while they are true
(abnormal-true). A dataset that does not match its spec yet is either Reconciling or Stalled, also while it is
suspended: kstatus reads a resource with neither as current.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Self

from diffugen_api.v1alpha1 import Condition
from diffugen_operator import reasons
from diffugen_operator.observed.base import Trouble, write_time

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"
QUEUED = "Queued"
SUSPENDED = "Suspended"

MESSAGE_LENGTH = 1024
REASON_LENGTH = 63


class Kind(Enum):
    """The four things that a dataset can be doing."""

    WORKING = "working"
    SUSPENDED = "suspended"
    STALLED = "stalled"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What a dataset is doing, for users: the step, a CamelCase reason, a sentence."""

    kind: Kind
    step: str = ""
    reason: str
    message: str
    queued: Trouble | None = None
    """What is queued, and why: the whole run, or a stage while another one is running."""

    @property
    def should_progress(self) -> bool:
        """Whether there should be progress: the run is not finished, not suspended, and not queued as a whole."""
        return self.kind is Kind.WORKING and self.reason != reasons.QUEUED

    @classmethod
    def working(cls, step: str, reason: str, message: str, *, queued: Trouble | None = None) -> Self:
        """Return the phase of a step that is running."""
        return cls(kind=Kind.WORKING, step=step, reason=reason, message=message, queued=queued)

    @classmethod
    def stalled(cls, step: str, reason: str, message: str) -> Self:
        """Return the phase of a run that cannot continue by itself."""
        return cls(kind=Kind.STALLED, step=step, reason=reason, message=message)

    @classmethod
    def suspended(cls, step: str) -> Self:
        """Return the phase of a run that spec.suspend suspends."""
        message = "spec.suspend is true: no pods run, finished work is kept. Set it to false to continue."
        return cls(kind=Kind.SUSPENDED, step=step, reason=reasons.SUSPENDED, message=message)

    @classmethod
    def published(cls, message: str) -> Self:
        """Return the phase of a dataset that matches its spec."""
        return cls(kind=Kind.PUBLISHED, reason=reasons.PUBLISHED, message=message)


def conditions_of(
    phase: Phase, *, suspended: bool, generation: int, former: list[Condition], now: datetime
) -> list[Condition]:
    """Return the conditions; a transition time changes only when its condition's status does."""
    shown = [(READY, phase.kind is Kind.PUBLISHED, phase.reason, phase.message)]
    if phase.kind in (Kind.WORKING, Kind.SUSPENDED):
        shown.append((RECONCILING, True, phase.reason, phase.message))
    if phase.kind is Kind.STALLED:
        shown.append((STALLED, True, phase.reason, phase.message))
    if phase.queued is not None:
        shown.append((QUEUED, True, phase.queued.reason, phase.queued.message))
    if suspended:
        shown.append((SUSPENDED, True, reasons.SUSPENDED, "spec.suspend is true."))
    since = {(condition.type, condition.status): condition.last_transition_time for condition in former}
    return [
        Condition(
            type=kind,
            status="True" if status else "False",
            reason=reason[:REASON_LENGTH],
            message=cut(message, MESSAGE_LENGTH),
            last_transition_time=since.get((kind, "True" if status else "False"), write_time(now)),
            observed_generation=generation,
        )
        for kind, status, reason, message in shown
    ]


def find(conditions: list[Condition], kind: str) -> Condition | None:
    """Return the condition of this type, if it is true."""
    return next((c for c in conditions if c.type == kind and c.status == "True"), None)


def cut(text: str, length: int) -> str:
    """Return the text, shortened to `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def sentence(text: str) -> str:
    """Return the text with exactly one full stop at its end."""
    text = text.rstrip()
    return text if text.endswith(("!", "?", "…")) else f"{text.rstrip('.:;, ')}." if text else ""
