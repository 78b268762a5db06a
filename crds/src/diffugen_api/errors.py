"""The error of a spec with which no run can succeed."""

from __future__ import annotations

from collections.abc import Sequence

_LISTED = 20
"""The most names that a message lists."""


class SpecError(ValueError):
    """A spec with which no run can succeed: `reason` is CamelCase, the message names the field and the fix."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep the condition's reason and its message."""
        super().__init__(shortened(message))
        self.reason = reason

    def __reduce__(self) -> tuple[type[SpecError], tuple[str, str]]:
        """Support pickling, so that the error can leave a worker process."""
        return type(self), (self.reason, str(self))


def shortened(text: str, most: int = 4000) -> str:
    """Return a text of at most `most` characters: its middle is left out. A message can quote what somebody wrote."""
    return text if len(text) <= most else f"{text[: most * 3 // 4]} … {text[-most // 4 + 3 :]}"


def listed(names: Sequence[str]) -> str:
    """Return names for a message: the first ones, and how many more there are."""
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED:,} more"
