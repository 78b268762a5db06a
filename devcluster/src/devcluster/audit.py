"""Who asked the API server for what: its audit log, for tests that count requests."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """One answered request."""

    user: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    received: datetime
    completed: datetime

    @property
    def is_write(self) -> bool:
        """Whether it was to change something."""
        return self.verb in _WRITES


def audit_events(log: Path) -> Iterator[AuditEvent]:
    """Every request that has been answered so far; of a watch also the one that is open, with the code it began with."""
    with log.open() as lines:
        for line in lines:
            if not line.endswith("\n"):  # being written
                return
            yield _event(json.loads(line))


def _event(entry: dict[str, object]) -> AuditEvent:
    user, target, status = (_mapping(entry, key) for key in ("user", "objectRef", "responseStatus"))
    return AuditEvent(
        user=str(user["username"]),
        verb=str(entry["verb"]),
        group=str(target.get("apiGroup", "")),
        resource=str(target.get("resource", "")),
        subresource=str(target.get("subresource", "")),
        namespace=str(target.get("namespace", "")),
        name=str(target.get("name", "")),
        code=int(str(status.get("code", 0))),
        received=datetime.fromisoformat(str(entry["requestReceivedTimestamp"])),
        completed=datetime.fromisoformat(str(entry["stageTimestamp"])),
    )


def _mapping(entry: dict[str, object], key: str) -> dict[str, object]:
    value = entry.get(key)
    return value if isinstance(value, dict) else {}
