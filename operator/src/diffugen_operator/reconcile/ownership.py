"""Whether an object under a name that a run needs is the one that the run makes.

The name, labels and owner of a run's objects can be guessed. So anyone with the right to create such objects can take a
name before the operator does: what is found under it counts only if its content is right, too.
"""

from __future__ import annotations

import base64
import zlib

from diffugen_api.contract import LABEL_ATTEMPT, MOST_ORDER_BYTES
from diffugen_operator import reasons
from diffugen_operator.kube.cache import Object, order_of, owner_of
from diffugen_operator.observed.base import Trouble
from diffugen_operator.observed.dataset import Dataset


class RefusedError(Exception):
    """The API server refused an action."""

    def __init__(self, trouble: Trouble, *, for_good: bool) -> None:
        super().__init__(trouble.message)
        self.trouble = trouble
        self.for_good = for_good


class ChildStoppingError(Exception):
    """An object with the wanted name is still being deleted."""


def check_ours(there: Object | None, manifest: Object, dataset: Dataset) -> Object:
    """Return the existing object of this name. Raises RefusedError unless this run of this dataset created it."""
    name, kind = manifest["metadata"]["name"], manifest["kind"]
    if there is None or "deletionTimestamp" in there["metadata"]:
        raise ChildStoppingError(f"{kind} {name} is still being deleted")
    ours = (owner_of(there) or {}).get("uid") == dataset.uid
    labels = there["metadata"].get("labels") or {}
    same_run = labels.get(LABEL_ATTEMPT) == manifest["metadata"]["labels"][LABEL_ATTEMPT]
    if not (ours and same_run and _content_of(there, kind) == _content_of(manifest, kind)):
        raise RefusedError(conflict(kind, name), for_good=True)
    return there


def conflict(kind: str, name: str) -> Trouble:
    """Return the trouble of an object that is not as the run makes it."""
    return Trouble(
        reason=reasons.NAME_CONFLICT,
        message=f"A {kind} named {name} exists and is not as this run makes it: delete or rename it, then request a "
        "retry.",
    )


def _content_of(obj: Object, kind: str) -> object:
    """Return the part that must match: all of a ConfigMap; of a Job, whose defaults and mutations vary, its order."""
    if kind == "ConfigMap":
        packed = {key: _unpacked(value) for key, value in (obj.get("binaryData") or {}).items()}
        return obj.get("data") or {}, packed, obj.get("immutable") is True
    return order_of(obj)


def _unpacked(value: str) -> bytes | str:
    """Return what a value was before compression: another version of zlib compresses the same to other bytes."""
    try:
        unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        return unpacking.decompress(base64.b64decode(value), MOST_ORDER_BYTES)
    except (ValueError, zlib.error):
        return value
