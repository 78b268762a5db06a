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


_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
"""The range of accepted times; sums and differences of such times do not overflow."""


def read_time(text: str | None) -> datetime | None:
    """Read a timestamp; None if it is absent or not a time with a time zone: somebody else may have written it."""
    try:
        moment = datetime.fromisoformat(text or "")
        return moment.astimezone(UTC) if moment.tzinfo is not None and _EARLIEST <= moment <= _LATEST else None
    except (ValueError, OverflowError):
        return None


def write_time(moment: datetime) -> str:
    """Write a timestamp in the form of the API: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
