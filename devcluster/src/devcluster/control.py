"""Requests to a running cluster's supervisor: one JSON line in each direction over a Unix socket.

A request is `{"verb": ..., "process": ...}`, the answer is `{"ok": ...}` or `{"error": ...}`. Only the supervisor may
start and kill the cluster's processes, because it is their parent: it reaps them, and the kernel ends them when it
ends.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

Verb: TypeAlias = Literal["down", "pids", "kill", "start", "pause", "resume"]
Answer: TypeAlias = Any  # any JSON; it depends on the verb

_LONGEST_WAIT_S = 60.0


class ControlError(RuntimeError):
    """The supervisor refused the request, or it failed."""


def ask(control: Path, verb: Verb, process: str | None = None, *, timeout_s: float = _LONGEST_WAIT_S) -> Answer:
    """Send one request and wait for its answer. Raises OSError when nobody listens."""
    with socket.socket(socket.AF_UNIX) as connection, short_path(control) as path:
        connection.settimeout(timeout_s)
        connection.connect(path)
        connection.sendall(json.dumps({"verb": verb, "process": process}).encode() + b"\n")
        with connection.makefile() as stream:
            answer = json.loads(stream.readline() or '{"error": "the supervisor hung up"}')
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer["ok"]


@contextmanager
def short_path(socket_file: Path) -> Iterator[str]:
    """Yield a path of the socket that fits into the kernel's limit of 108 bytes, also for a long folder path."""
    directory = os.open(socket_file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{socket_file.name}"
    finally:
        os.close(directory)
