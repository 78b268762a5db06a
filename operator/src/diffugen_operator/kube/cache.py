"""The cache of the cluster's objects, updated by watch events, by our own writes, and by lists.

For events and our own writes, the higher resourceVersion wins, with any uid, and also against a deletion: an answer
that was requested before an object was deleted and arrives later does not restore it. Our own writes are stored at
once, so that the next reconcile never acts on a state older than them.

A list replaces everything that was known before it was requested, at any version: it adds what a watch missed, and
after etcd was restored from a snapshot the versions of the same objects are lower. Objects that became known after the
request are compared by version, as above.

Only the parts of an object that decisions need are kept: no managed fields, no pod specs, no counts of running
pods. If only other parts change, the object does not count as changed.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from diffugen_api.contract import KIND, MANAGED_BY
from diffugen_operator.kube.work_queue import Key

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


_NOISE_OF_METADATA = frozenset({"managedFields"})
_NOISE = {
    Resource.DATASETS: frozenset[str](),
    Resource.JOBS: frozenset({"active", "ready", "terminating", "uncountedTerminatedPods"}),
}
"""Fields of a status that change often and that no decision needs."""

# There are more pods than other objects, and they change most often. Only what a decision reads is kept of them.
_OF_PODS = (
    ("namespace", "name", "uid", "resourceVersion", "deletionTimestamp", "ownerReferences"),
    ("batch.kubernetes.io/job-name", "job-name", "batch.kubernetes.io/job-completion-index"),
    ("phase", "reason", "message", "podIP", "startTime"),
)
"""Of a pod: the fields of its metadata, its labels, and the fields of its status."""


class _Gone(NamedTuple):
    """What is kept of a deleted object."""

    version: int
    change: int
    """When it became known, counted in changes of the cache."""


_QUIET = frozenset({"startTime"})
"""Fields of a status that are kept; if only they change, the object does not count as changed."""


class Cache:
    """The datasets, their Jobs and their pods."""

    def __init__(self) -> None:
        self._objects: dict[Resource, dict[Name, Object]] = {resource: {} for resource in Resource}
        self._gone: dict[Resource, dict[Name, _Gone]] = {resource: {} for resource in Resource}
        self._changes = 0
        self._changed_at: dict[Resource, dict[Name, int]] = {resource: {} for resource in Resource}
        self._children: dict[Resource, defaultdict[Name, dict[str, Object]]] = {
            Resource.JOBS: defaultdict(dict),  # by dataset
            Resource.PODS: defaultdict(dict),  # by Job
        }

    def dataset(self, key: Key) -> Object | None:
        """Return a dataset."""
        return self._objects[Resource.DATASETS].get((key.namespace, key.name))

    def datasets(self) -> list[Key]:
        """Return the names of all datasets."""
        return [Key(*name) for name in self._objects[Resource.DATASETS]]

    def jobs_of(self, key: Key, uid: str) -> list[Object]:
        """Return the Jobs that the dataset of this uid owns."""
        jobs = self._children[Resource.JOBS].get((key.namespace, key.name), {})
        return [job for job in jobs.values() if (owner_of(job) or {}).get("uid") == uid]

    def pods_of(self, namespace: str, job: str) -> list[Object]:
        """Return the pods of a Job."""
        return list(self._children[Resource.PODS].get((namespace, job), {}).values())

    def key_of(self, resource: Resource, obj: Mapping[str, Any]) -> Key | None:
        """Return the dataset that an object belongs to; None if it is not ours, or its owner is not known yet."""
        namespace = obj["metadata"]["namespace"]
        if resource is Resource.DATASETS:
            return Key(namespace, obj["metadata"]["name"])
        owner = owner_of(obj)
        if owner is None:
            return None
        if resource is Resource.JOBS:
            return Key(namespace, owner["name"]) if owner.get("kind") == KIND else None
        return self.dataset_of(namespace, owner["name"])

    def dataset_of(self, namespace: str, job: str) -> Key | None:
        """Return the dataset of a Job; None if no Job of this name is known."""
        known = self._objects[Resource.JOBS].get((namespace, job))
        return None if known is None else self.key_of(Resource.JOBS, known)

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
        self._changed_at[resource][name] = self._changes
        if known is not None and known["metadata"]["uid"] != obj["metadata"]["uid"]:
            self.drop(resource, known)
        kept = _reduced(resource, obj)
        news = known is None or known["metadata"]["uid"] != kept["metadata"]["uid"] or _content(known) != _content(kept)
        self._objects[resource][name] = kept
        self._gone[resource].pop(name, None)
        if (parent := _parent(resource, kept)) is not None:
            self._children[resource][parent][name[1]] = kept
        return news

    def drop(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        """Remove a deleted object; nothing older can restore it; an object with another uid stays."""
        name = _name(obj)
        known = self._objects[resource].get(name)
        if known is None:
            self._remember_gone(resource, name, version_of(obj))
            return
        if known["metadata"]["uid"] != obj["metadata"]["uid"]:
            return
        self._remember_gone(resource, name, max(version_of(known), version_of(obj)))
        del self._objects[resource][name]
        self._changed_at[resource].pop(name, None)
        if (parent := _parent(resource, known)) is not None:
            siblings = self._children[resource][parent]
            siblings.pop(name[1], None)
            if not siblings:
                del self._children[resource][parent]

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
        for name, obj in list(self._objects[resource].items()):
            if namespace in (None, name[0]) and name not in listed:
                known_before = self._changed_at[resource].get(name, 0) <= requested
                if known_before or version_of(obj) <= version:
                    self.drop(resource, obj)

    def count(self, resource: Resource) -> int:
        """Return how many objects of a kind are known."""
        return len(self._objects[resource])

    def _is_older(
        self, resource: Resource, name: Name, version: int, known: Object | None, requested: int | None
    ) -> bool:
        """Whether an object of this version is older than what is known of its name."""
        if known is not None:
            latest, change = version_of(known), self._changed_at[resource].get(name, 0)
        else:
            latest, change = self._gone[resource].get(name, _Gone(-1, 0))
        if requested is not None and change <= requested:
            return known is not None and version == latest  # Nothing has changed.
        return version <= latest

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
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _parent(resource: Resource, obj: Mapping[str, Any]) -> Name | None:
    owner = owner_of(obj)
    if resource is Resource.DATASETS or owner is None:
        return None
    return obj["metadata"]["namespace"], owner["name"]


def _content(obj: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return an object's content without its version."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    # When a Job started is kept, but it causes no reconcile: nothing is due at that moment.
    return metadata, obj.get("spec") or {}, _without(obj["status"], _QUIET)


def _pod(obj: Mapping[str, Any]) -> Object:
    of_metadata, labels, of_status = _OF_PODS
    metadata, status = obj["metadata"], obj.get("status") or {}
    kept = {name: metadata[name] for name in of_metadata if name in metadata}
    kept["labels"] = {name: text for name, text in (metadata.get("labels") or {}).items() if name in labels}
    state = {name: status[name] for name in of_status if name in status}
    for conditions in ("conditions", "containerStatuses", "initContainerStatuses"):
        if found := status.get(conditions):
            state[conditions] = [{name: each[name] for name in _OF_STATES if name in each} for each in found]
    return {"metadata": kept, "status": state, "spec": {"nodeName": (obj.get("spec") or {}).get("nodeName", "")}}


_OF_STATES = ("type", "status", "reason", "message", "lastTransitionTime", "name", "image", "state")
"""Of a pod's conditions and of its containers' statuses, the fields that decisions read."""


def _reduced(resource: Resource, obj: Mapping[str, Any]) -> Object:
    if resource is Resource.PODS:
        pod: Object = _shared(_pod(obj))
        return pod
    metadata = _without(obj["metadata"], _NOISE_OF_METADATA)
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {key: text for key, text in annotations.items() if key != _APPLIED}
    kept: Object = {"metadata": metadata, "status": _without(obj.get("status") or {}, _NOISE[resource])}
    if resource is Resource.DATASETS:
        kept["spec"] = obj.get("spec") or {}
    else:
        kept["spec"] = {key: (obj.get("spec") or {}).get(key) for key in ("suspend", "parallelism")}
        if kept["spec"]["suspend"]:
            kept["spec"]["suspendedBy"] = _suspender(obj)
    shared: Object = _shared(kept)
    return shared


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


def _shared(value: Any) -> Any:
    """Return the same value in less memory: strings that thousands of objects repeat are kept once."""
    if isinstance(value, dict):
        return {sys.intern(key): _shared(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shared(inner) for inner in value]
    return sys.intern(value) if isinstance(value, str) else value


def _without(fields: Mapping[str, Any], noise: frozenset[str]) -> Object:
    return {key: value for key, value in fields.items() if key not in noise}
