"""Reads the API server's audit log, for tests that count requests.

Events are as the API server writes them (audit.k8s.io/v1, level Metadata): `user.username`, `verb`,
`requestURI`, `objectRef`, `responseStatus.code`, and two timestamps. If a client closed the connection before the
server knew the user, `user` is empty and the code is 401.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from devcluster.kubeapi import JsonObject

_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def audit_events(log: Path) -> Iterator[JsonObject]:
    """Yield every request that has been answered so far; also an open watch, with its first code."""
    with log.open() as lines:
        for line in lines:
            if not line.endswith("\n"):  # being written
                return
            yield json.loads(line)


def user_of(event: JsonObject) -> str | None:
    """Return the user of a request; None if the server never knew it."""
    name: str | None = event["user"].get("username")
    return name


def is_write(event: JsonObject) -> bool:
    """Return whether the request is a write."""
    return event["verb"] in _WRITES
