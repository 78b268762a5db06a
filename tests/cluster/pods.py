"""Pods for tests of the throwaway cluster, and functions that wait for their state."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from devcluster.cluster import ClusterError

Json = dict[str, Any]
T = TypeVar("T")

RESTRICTED_POD = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED_CONTAINER = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def shell(script: str, **fields: object) -> Json:
    return {
        "name": "main",
        "image": "diffugen/test",
        "command": ["sh", "-c", script],
        "securityContext": RESTRICTED_CONTAINER,
        **fields,
    }


def pod_spec(container: Json, **fields: object) -> Json:
    return {"restartPolicy": "Never", "securityContext": RESTRICTED_POD, "containers": [container], **fields}


def pod(namespace: str, container: Json, **fields: object) -> Json:
    meta = {"name": "pod", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod_spec(container, **fields)}


def named(namespace: str, kind: str, name: str, **content: object) -> Json:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, **content}


def eventually(look: Callable[[], T], *, within_s: float = 240) -> T:
    """Poll `look` until it returns something, and return that."""
    end = time.monotonic() + within_s
    while True:
        try:
            found = look()
            problem: Exception = AssertionError(f"found {found!r}")
        except (ClusterError, LookupError, AssertionError) as error:
            found, problem = None, error
        if found:
            return found
        if time.monotonic() > end:
            raise problem
        time.sleep(0.1)


def mentions(text: str) -> list[int]:
    """The processes whose environment or command line contain `text`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in told:
            found.append(int(entry.name))
    return found
