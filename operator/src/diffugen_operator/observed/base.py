"""What all readers of API objects share: the raw object, timestamps, and the cause of a delay or a failure.

A field that an object lacks is read as its zero value, because Kubernetes leaves zero values out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Raw = Mapping[str, Any]
"""An API object as the API server sends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why something waits or fails: a CamelCase reason and a message."""

    reason: str
    message: str


def read_time(text: str) -> datetime:
    """Read an API timestamp."""
    return datetime.fromisoformat(text).astimezone(UTC)


def write_time(moment: datetime) -> str:
    """Write a timestamp as the API has it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
