"""Names of the objects of a run: pure functions of the dataset's identity and the run.

A name holds a hash of the resource's uid, its full name, revision, store and attempt. So after a crash the operator
finds what it created before, two datasets whose names are shortened alike never collide, and a dataset that was deleted
and created again never adopts the Jobs of its namesake.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from diffugen_api.contract import Step

CONTAINER = "generator"
"""The container that does the work; other containers of a pod template are ignored."""

JOB_NAME_LENGTH = 52
"""An Indexed Job's pods have the hostname `<job>-<index>`, a DNS label of at most 63; our indexes have 4
digits, and pod names take a suffix of 6 more."""

LABEL_VALUE_LENGTH = 63
_HASH_DIGITS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKey:
    """One attempt of one revision of one dataset for one store."""

    uid: str
    namespace: str
    name: str
    revision: str
    store: str
    attempt: int

    @property
    def digest(self) -> str:
        """The hash that makes the names of this run unique."""
        parts = (self.uid, self.namespace, self.name, self.revision, self.store, str(self.attempt))
        return _digest("\n".join(parts))


def job_name(run: RunKey, step: Step, stage: str = "") -> str:
    """Return the name of a step's Job: dataset, step or stage, hash."""
    return _joined(run, stage or step.value, identity=f"{step}/{stage}")


def work_order_name(run: RunKey) -> str:
    """Return the name of the run's ConfigMap."""
    return _joined(run, "order", identity="order")


def label_value(name: str) -> str:
    """Return a name as a label's value: itself, or shortened with a hash if it is too long."""
    if len(name) <= LABEL_VALUE_LENGTH:
        return name
    return f"{name[: LABEL_VALUE_LENGTH - _HASH_DIGITS - 1].rstrip('-.')}-{_digest(name)}"


def _joined(run: RunKey, middle: str, *, identity: str) -> str:
    # A stage may be named `plan`: the digest tells the stage from the step.
    tail = f"{middle}-{_digest(f'{run.digest}/{identity}')}"
    room = JOB_NAME_LENGTH - len(tail) - 1
    return f"{run.name.replace('.', '-')[:room].rstrip('-')}-{tail}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]
