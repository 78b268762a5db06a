"""Who asked the API server for what: its audit log, for tests that count requests.

Events are as the API server writes them (audit.k8s.io/v1, level Metadata): `user.username`, `verb`,
`requestURI`, `objectRef`, `responseStatus.code`, and two timestamps. `user` is empty, and the code 401, where a
client was gone before the server knew whose request it was.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from devcluster.kubeapi import JsonObject

_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def audit_events(log: Path) -> Iterator[JsonObject]:
    """Every request that has been answered so far; an open watch too, with the code it began with."""
    with log.open() as lines:
        for line in lines:
            if not line.endswith("\n"):  # being written
                return
            yield json.loads(line)


def user_of(event: JsonObject) -> str | None:
    """Who asked; None where the server never got to know."""
    name: str | None = event["user"].get("username")
    return name


def is_write(event: JsonObject) -> bool:
    """Whether the request was to change something."""
    return event["verb"] in _WRITES
