"""What is wrong with a spec, for a person."""

from __future__ import annotations


class SpecError(ValueError):
    """A spec that no run can fulfil: `reason` is CamelCase, the message names the field and the mend."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep the condition's reason beside its message."""
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[SpecError], tuple[str, str]]:
        """Survive the way out of a worker process: an exception is rebuilt from its arguments."""
        return type(self), (self.reason, str(self))
