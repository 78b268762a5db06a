"""What one can ask of a running cluster's supervisor: one JSON line each way over a Unix socket.

A request is `{"verb": ..., "process": ...}`, the answer `{"ok": ...}` or `{"error": ...}`. Only the
supervisor may start and kill the cluster's processes, because it is their parent: the kernel ends them with
it, and it reaps them.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

Verb: TypeAlias = Literal["down", "pids", "kill", "start", "pause", "resume"]
Answer: TypeAlias = Any  # whatever JSON the verb answers with

_LONGEST_WAIT_S = 60.0


class ControlError(RuntimeError):
    """The supervisor refused or could not do it."""


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
    """A name for the socket that fits into the 108 bytes that the kernel allows, however deep it lies."""
    directory = os.open(socket_file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{socket_file.name}"
    finally:
        os.close(directory)
