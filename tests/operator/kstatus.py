"""The rules by which kstatus computes the status of a custom resource.

After kubernetes-sigs/cli-utils, pkg/kstatus/status: generic.go (checkGenericProperties, checkGeneration) and
status.go (Compute), read at commit 3219511. The rules do not use the Ready condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def kstatus(resource: Mapping[str, Any]) -> str:
    """Return Terminating, InProgress, Failed or Current."""
    metadata, status = resource["metadata"], resource.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    observed = status.get("observedGeneration")
    if observed is not None and observed != metadata.get("generation"):
        return "InProgress"
    for condition in status.get("conditions") or ():
        if condition["status"] == "True":
            if condition["type"] == "Reconciling":
                return "InProgress"
            if condition["type"] == "Stalled":
                return "Failed"
    return "Current"
