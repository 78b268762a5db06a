"""The cache of the cluster's objects, updated by watch events, by our own writes, and by lists.

For events and our own writes, the higher resourceVersion wins, with any uid, and also against a deletion: an answer
that was requested before an object was deleted and arrives later does not restore it. Our own writes are stored at
once, so that the next reconcile never acts on a state older than them.

A list replaces everything that was known before it was requested, at any version: it adds what a watch missed, and
after etcd was restored from a snapshot the versions of the same objects are lower. Objects that became known after the
request are compared by version, as above.

Only the parts of an object that decisions need are kept: no managed fields, no pod specs, no counts of running
pods. If only other parts change, the object does not count as changed.

An object is kept as JSON, which has less than a tenth of the size of the same object as dictionaries, and which the
garbage collector does not visit. It is read when it is asked for.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from diffugen_api.contract import (
    ANNOTATION_PARALLELISM,
    ANNOTATION_SETUP,
    ANNOTATION_SUSPENDED,
    ENV_ORDER_SHA256,
    KIND,
    LABEL_ATTEMPT,
    LABEL_QUEUE,
    LABEL_STAGE,
    LABEL_STEP,
    MANAGED_BY,
)
from diffugen_operator.kube.work_queue import Key
from diffugen_operator.manifests.names import CONTAINER

Object = dict[str, Any]
Name = tuple[str, str]
"""Namespace and name."""

MOST_GONE = 10_000
"""For how many deleted objects of a kind the version is kept: far more than are deleted during one list."""

_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Resource(StrEnum):
    """The kinds of objects that are watched."""

    DATASETS = "labeleddatasets"
    JOBS = "jobs"
    PODS = "pods"


class _Fields(NamedTuple):
    """The fields of a kind that decisions read."""

    metadata: tuple[str, ...]
    labels: tuple[str, ...]
    annotations: tuple[str, ...]
    status: tuple[str, ...]


_METADATA = ("namespace", "name", "uid", "deletionTimestamp", "ownerReferences")
_OF_JOBS = _Fields(
    metadata=(*_METADATA, "creationTimestamp"),
    labels=(LABEL_STEP, LABEL_STAGE, LABEL_ATTEMPT, LABEL_QUEUE),
    annotations=(ANNOTATION_SETUP, ANNOTATION_SUSPENDED, ANNOTATION_PARALLELISM),
    status=("startTime", "completionTime", "failed", "completedIndexes", "failedIndexes"),
)
_OF_PODS = _Fields(
    metadata=_METADATA,
    labels=("batch.kubernetes.io/job-name", "job-name", "batch.kubernetes.io/job-completion-index"),
    annotations=(),
    status=("phase", "reason", "message", "podIP", "startTime"),
)
_OF_JOB_CONDITIONS = ("type", "status", "reason", "message")
_JOB_CONDITIONS = frozenset({"Complete", "Failed", "FailureTarget", "Suspended"})
_OF_STATES = ("type", "status", "reason", "message", "lastTransitionTime", "name", "image", "state")
"""Of a pod's conditions and of its containers' statuses, the fields that decisions read."""

_QUIET = frozenset({"startTime"})
"""Fields of a status that are kept; if only they change, the object does not count as changed."""


class _Gone(NamedTuple):
    """What is kept of a deleted object."""

    version: int
    change: int
    """When it became known, counted in changes of the cache."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept of an object."""

    version: int
    uid: str
    parent: Name | None
    """The dataset of a Job, or the Job of a pod."""
    owner: str
    """The uid of its controller."""
    change: int
    """When it became known, counted in changes of the cache."""
    true_conditions: tuple[str, ...]
    """Of a dataset: the types of its conditions that are true."""
    content: bytes
    """The parts that decisions need, as JSON, without the resourceVersion."""

    def read(self) -> Object:
        """Return the object."""
        found: Object = orjson.loads(self.content)
        found["metadata"]["resourceVersion"] = str(self.version)
        return found


class Cache:
    """The datasets, their Jobs and their pods."""

    def __init__(self) -> None:
        self._objects: dict[Resource, dict[Name, _Kept]] = {resource: {} for resource in Resource}
        self._gone: dict[Resource, dict[Name, _Gone]] = {resource: {} for resource in Resource}
        self._changes = 0
        self._children: dict[Resource, defaultdict[Name, dict[str, None]]] = {
            Resource.JOBS: defaultdict(dict),  # by dataset
            Resource.PODS: defaultdict(dict),  # by Job
        }

    def dataset(self, key: Key) -> Object | None:
        """Return a dataset."""
        known = self._objects[Resource.DATASETS].get((key.namespace, key.name))
        return None if known is None else known.read()

    def datasets(self) -> list[Key]:
        """Return the names of all datasets."""
        return [Key(*name) for name in self._objects[Resource.DATASETS]]

    def true_conditions(self) -> Counter[str]:
        """Return for how many datasets a condition is true, by its type."""
        return Counter(kind for kept in self._objects[Resource.DATASETS].values() for kind in kept.true_conditions)

    def jobs_of(self, key: Key, uid: str) -> list[Object]:
        """Return the Jobs that the dataset of this uid owns."""
        return [job.read() for job in self._children_of(Resource.JOBS, key.namespace, key.name) if job.owner == uid]

    def pods_of(self, namespace: str, job: str) -> list[Object]:
        """Return the pods of a Job."""
        return [pod.read() for pod in self._children_of(Resource.PODS, namespace, job)]

    def key_of(self, resource: Resource, obj: Mapping[str, Any]) -> Key | None:
        """Return the dataset that an object belongs to; None if it is not ours, or its owner is not known yet."""
        if resource is Resource.DATASETS:
            return Key(*_name(obj))
        parent = _parent(resource, obj)
        if parent is None:
            return None
        return Key(*parent) if resource is Resource.JOBS else self.dataset_of(*parent)

    def dataset_of(self, namespace: str, job: str) -> Key | None:
        """Return the dataset of a Job; None if no Job of this name is known."""
        known = self._objects[Resource.JOBS].get((namespace, job))
        return None if known is None or known.parent is None else Key(*known.parent)

    def mark(self) -> int:
        """Return a mark to be passed with the answer to a request that is sent now."""
        return self._changes

    def put(self, resource: Resource, obj: Mapping[str, Any], *, requested: int | None = None) -> bool:
        """Store an object; returns whether anything changed.

        `requested`: the mark of the request that it answers. It replaces what was known then, at any version.
        """
        name = _name(obj)
        known = self._objects[resource].get(name)
        if self._is_older(resource, name, version_of(obj), known, requested):
            return False
        self._changes += 1
        if known is not None and known.uid != obj["metadata"]["uid"]:
            self._forget(resource, name, known)
            known = None
        kept = _kept(resource, obj, self._changes)
        self._objects[resource][name] = kept
        self._gone[resource].pop(name, None)
        if kept.parent is not None:
            self._children[resource][kept.parent].setdefault(name[1])
        return known is None or _differ(known.content, kept.content)

    def drop(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        """Remove a deleted object; nothing older can restore it; an object with another uid stays."""
        name = _name(obj)
        known = self._objects[resource].get(name)
        if known is None:
            self._remember_gone(resource, name, version_of(obj))
        elif known.uid == obj["metadata"]["uid"]:
            self._remember_gone(resource, name, max(known.version, version_of(obj)))
            self._forget(resource, name, known)

    def put_page(self, resource: Resource, objects: Iterable[Mapping[str, Any]], *, requested: int) -> set[Name]:
        """Store a page of a list that was requested at this mark; returns the names in it."""
        listed = set()
        for obj in objects:
            listed.add(_name(obj))
            self.put(resource, obj, requested=requested)
        return listed

    def keep_listed(
        self, resource: Resource, namespace: str | None, listed: set[Name], version: int, *, requested: int
    ) -> None:
        """Remove objects that a list of a namespace (None: of all) at `version` lacks, except those known later."""
        for name, kept in list(self._objects[resource].items()):
            absent = namespace in (None, name[0]) and name not in listed
            if absent and (kept.change <= requested or kept.version <= version):
                self._remember_gone(resource, name, kept.version)
                self._forget(resource, name, kept)

    def count(self, resource: Resource) -> int:
        """Return how many objects of a kind are known."""
        return len(self._objects[resource])

    def newest(self, resource: Resource, namespace: str | None) -> int:
        """Return the highest version among the objects of a kind in a namespace (None: in all); 0 without objects."""
        kept = self._objects[resource].items()
        return max((each.version for name, each in kept if namespace in (None, name[0])), default=0)

    def _children_of(self, resource: Resource, namespace: str, parent: str) -> list[_Kept]:
        objects = self._objects[resource]
        return [objects[namespace, name] for name in self._children[resource].get((namespace, parent), ())]

    def _is_older(
        self, resource: Resource, name: Name, version: int, known: _Kept | None, requested: int | None
    ) -> bool:
        """Whether an object of this version is older than what is known of its name."""
        latest = known or self._gone[resource].get(name, _Gone(-1, 0))
        if requested is not None and latest.change <= requested:
            return known is not None and version == known.version  # Nothing has changed.
        return version <= latest.version

    def _forget(self, resource: Resource, name: Name, known: _Kept) -> None:
        del self._objects[resource][name]
        if known.parent is not None:
            siblings = self._children[resource][known.parent]
            siblings.pop(name[1], None)
            if not siblings:
                del self._children[resource][known.parent]

    def _remember_gone(self, resource: Resource, name: Name, version: int) -> None:
        gone = self._gone[resource]
        self._changes += 1
        gone[name] = _Gone(max(version, gone.pop(name, _Gone(-1, 0)).version), self._changes)
        if len(gone) > MOST_GONE:
            del gone[next(iter(gone))]  # The object that was deleted first.


def owner_of(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the owner reference of an object's controller."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            found: Mapping[str, Any] = owner
            return found
    return None


def version_of(obj: Mapping[str, Any]) -> int:
    """Return an object's resourceVersion; comparable within a kind (KEP-5504)."""
    return int(obj["metadata"].get("resourceVersion") or 0)


def _name(obj: Mapping[str, Any]) -> Name:
    return sys.intern(obj["metadata"]["namespace"]), obj["metadata"]["name"]


def _parent(resource: Resource, obj: Mapping[str, Any]) -> Name | None:
    owner = owner_of(obj)
    if resource is Resource.DATASETS or owner is None or (resource is Resource.JOBS and owner.get("kind") != KIND):
        return None
    return sys.intern(obj["metadata"]["namespace"]), owner["name"]


def _kept(resource: Resource, obj: Mapping[str, Any], change: int) -> _Kept:
    reduced = _REDUCED[resource](obj)
    return _Kept(
        version=version_of(obj),
        uid=obj["metadata"]["uid"],
        parent=_parent(resource, obj),
        owner=(owner_of(obj) or {}).get("uid", ""),
        change=change,
        true_conditions=_true_conditions(reduced["status"]) if resource is Resource.DATASETS else (),
        content=_dumped(reduced),
    )


def _true_conditions(status: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sys.intern(each["type"]) for each in status.get("conditions") or () if each["status"] == "True")


def _dumped(obj: Object) -> bytes:
    try:
        return memoryview(orjson.dumps(obj)).tobytes()  # A copy: orjson's own bytes keep the room of its buffer.
    except TypeError:  # A pod template may have a number beyond 64 bits.
        return json.dumps(obj).encode()


def _differ(former: bytes, present: bytes) -> bool:
    """Whether there is a difference that counts as a change."""
    return former != present and _loud(former) != _loud(present)


def _loud(content: bytes) -> Object:
    obj: Object = orjson.loads(content)
    # When a Job started is kept, but it causes no reconcile: nothing is due at that moment.
    obj["status"] = {name: value for name, value in obj["status"].items() if name not in _QUIET}
    return obj


def _dataset(obj: Mapping[str, Any]) -> Object:
    metadata = {
        name: value for name, value in obj["metadata"].items() if name not in ("managedFields", "resourceVersion")
    }
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {name: text for name, text in annotations.items() if name != _APPLIED}
    return {"metadata": metadata, "spec": obj.get("spec") or {}, "status": obj.get("status") or {}}


def _job(obj: Mapping[str, Any]) -> Object:
    reduced = _reduced(_OF_JOBS, obj)
    spec, conditions = obj.get("spec") or {}, (obj.get("status") or {}).get("conditions") or ()
    reduced["spec"] = {"suspend": spec.get("suspend"), "parallelism": spec.get("parallelism"), "order": order_of(obj)}
    if spec.get("suspend"):
        reduced["spec"]["suspendedBy"] = _suspender(obj)
    if found := [_only(_OF_JOB_CONDITIONS, each) for each in conditions if each.get("type") in _JOB_CONDITIONS]:
        reduced["status"]["conditions"] = found
    return reduced


def _pod(obj: Mapping[str, Any]) -> Object:
    reduced, status = _reduced(_OF_PODS, obj), obj.get("status") or {}
    reduced["spec"] = {"nodeName": (obj.get("spec") or {}).get("nodeName", "")}
    for states in ("conditions", "containerStatuses", "initContainerStatuses"):
        if found := status.get(states):
            reduced["status"][states] = [_only(_OF_STATES, each) for each in found]
    ended = any("terminated" in (each.get("state") or {}) for each in status.get("containerStatuses") or ())
    if ended and status.get("phase") == "Running":  # By the API server's clock; the node's may be wrong.
        changes = [entry.get("time") or "" for entry in obj["metadata"].get("managedFields") or ()]
        reduced["status"]["changedAt"] = max(changes, default="")
    return reduced


_REDUCED: Mapping[Resource, Callable[[Mapping[str, Any]], Object]] = {
    Resource.DATASETS: _dataset,
    Resource.JOBS: _job,
    Resource.PODS: _pod,
}
"""For each kind, what returns the parts of an object that decisions need."""


def _reduced(fields: _Fields, obj: Mapping[str, Any]) -> Object:
    metadata = _only(fields.metadata, obj["metadata"])
    metadata["labels"] = _only(fields.labels, obj["metadata"].get("labels") or {})
    metadata["annotations"] = _only(fields.annotations, obj["metadata"].get("annotations") or {})
    return {"metadata": metadata, "status": _only(fields.status, obj.get("status") or {})}


def _only(names: Iterable[str], fields: Mapping[str, Any]) -> Object:
    return {name: fields[name] for name in names if name in fields}


def order_of(job: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the work order that a Job's pods accept; empty if its pod template names none."""
    template = ((job.get("spec") or {}).get("template") or {}).get("spec") or {}
    env = next((each.get("env") or () for each in template.get("containers") or () if each["name"] == CONTAINER), ())
    return next((each.get("value") or "" for each in env if each["name"] == ENV_ORDER_SHA256), "")


def _suspender(job: Mapping[str, Any]) -> str:
    """Return who set a Job's spec.suspend last; empty if that is not known, as where a webhook set it at creation.

    The API server attributes what a webhook changes at the creation to the creator, which is this operator.
    """
    setters = [
        entry
        for entry in job["metadata"].get("managedFields") or ()
        if "f:suspend" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    ]
    if not setters:
        return ""
    last = max(setters, key=lambda entry: entry.get("time") or "")
    at_creation = (last.get("time") or "") <= (job["metadata"].get("creationTimestamp") or "")
    manager: str = last.get("manager", "")
    return "" if manager == MANAGED_BY and at_creation else manager
