"""A cluster in memory that records requests, in place of the API server."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import Any

from diffugen_api.contract import ANNOTATION_SUSPENDED
from diffugen_operator.kube.api import ApiError
from diffugen_operator.kube.cache import Resource
from diffugen_operator.kube.work_queue import Key
from diffugen_operator.reconcile.requests import Requests

Object = dict[str, Any]


class CrashError(BaseException):
    """Simulates a crash of the operator's process at this point."""


class PretendCluster(Requests):
    """Holds objects, gives them versions, and refuses requests where a test wants that."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.requests: list[tuple[str, str]] = []
        self.refusals: dict[str, Exception] = {}
        self.events: list[str] = []
        self.version = 100
        self.crash_at: tuple[int, str] | None = None
        """Crash at the n-th write, before or after it took effect."""
        self.writes = 0
        self.image_volumes = True
        """Whether image volumes are kept; a server without the feature drops them."""

    def _crash(self, when: str) -> None:
        if self.crash_at == (self.writes, when):
            self.crash_at = None
            raise CrashError

    def put(self, kind: str, obj: Object) -> Object:
        self.version += 1
        obj = copy.deepcopy(obj)
        obj["metadata"] |= {"resourceVersion": str(self.version)}
        obj["metadata"].setdefault("uid", f"uid-of-{obj['metadata']['name']}")
        self.objects[kind, obj["metadata"]["name"]] = obj
        return copy.deepcopy(obj)

    def _asked(self, verb: str, kind: str) -> None:
        self.requests.append((verb, kind))
        if verb not in ("get", "list"):
            self.writes += 1
            self._crash("before")
        if (refusal := self.refusals.pop(f"{verb} {kind}", None)) is not None:
            raise refusal

    def _create(self, kind: str, manifest: Object) -> Object:
        self._asked("create", kind)
        if (kind, manifest["metadata"]["name"]) in self.objects:
            raise ApiError(409, "AlreadyExists", "it exists")
        created = self.put(kind, manifest | {"status": {}})
        self._crash("after")
        return created

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        self._asked("get", resource.value)
        return copy.deepcopy(self.objects.get((resource.value, name)))

    async def get_config_map(self, namespace: str, name: str) -> Object | None:
        self._asked("get", "configmaps")
        return copy.deepcopy(self.objects.get(("configmaps", name)))

    async def pods_of(self, namespace: str, job: str) -> list[Object]:
        self._asked("list", "pods")
        label = "batch.kubernetes.io/job-name"
        return [
            copy.deepcopy(obj)
            for (kind, _), obj in self.objects.items()
            if kind == "pods" and obj["metadata"]["labels"][label] == job
        ]

    async def create_job(self, manifest: Object) -> Object:
        return self._create("jobs", manifest)

    async def dry_run_job(self, manifest: Object) -> Object:
        self.requests.append(("dry run", "jobs"))
        if (refusal := self.refusals.pop("dry run jobs", None)) is not None:
            raise refusal
        pod = manifest["spec"]["template"]["spec"]
        if self.image_volumes:
            return copy.deepcopy(manifest)
        kept = {**pod, "volumes": [each for each in pod["volumes"] if "image" not in each]}
        return {**manifest, "spec": {**manifest["spec"], "template": {**manifest["spec"]["template"], "spec": kept}}}

    async def create_config_map(self, manifest: Object) -> Object:
        return self._create("configmaps", manifest)

    async def delete_config_map(self, namespace: str, name: str) -> None:
        self._asked("delete", "configmaps")
        self.objects.pop(("configmaps", name), None)

    async def suspend_job(self, namespace: str, name: str, *, suspend: bool) -> Object:
        self._asked("patch", "jobs")
        job = self.objects["jobs", name]
        annotations = dict(job["metadata"].get("annotations") or {})
        annotations.pop(ANNOTATION_SUSPENDED, None)
        annotations.update({ANNOTATION_SUSPENDED: "true"} if suspend else {})
        metadata = {**job["metadata"], "annotations": annotations}
        return self.put("jobs", job | {"metadata": metadata, "spec": {**job["spec"], "suspend": suspend}})

    async def resize_job(self, namespace: str, name: str, parallelism: int) -> Object:
        self._asked("patch", "jobs")
        job = self.objects["jobs", name]
        return self.put("jobs", job | {"spec": {**job["spec"], "parallelism": parallelism}})

    async def delete_job(self, namespace: str, name: str, uid: str, *, wait: bool) -> None:
        self._asked("delete", "jobs")
        self.objects.pop(("jobs", name), None)
        self._crash("after")

    async def patch_status(self, key: Key, version: str, patch: Any) -> Object:
        self._asked("patch", "status")
        there = self.objects["labeleddatasets", key.name]
        if there["metadata"]["resourceVersion"] != version:
            raise ApiError(409, "Conflict", "it has changed")
        written = self.put("labeleddatasets", there | {"status": _merged(there["status"], patch)})
        self._crash("after")
        return written

    async def set_finalizers(self, key: Key, version: str, finalizers: Any) -> Object:
        self._asked("patch", "finalizers")
        there = self.objects["labeleddatasets", key.name]
        if there["metadata"]["resourceVersion"] != version:
            raise ApiError(409, "Conflict", "it has changed")
        metadata = {**there["metadata"], "finalizers": list(finalizers)}
        changed = self.put("labeleddatasets", there | {"metadata": metadata})
        if "deletionTimestamp" in metadata and not finalizers:
            del self.objects["labeleddatasets", key.name]
        self._crash("after")
        return changed

    async def workloads_of(self, version: str, namespace: str, job_uid: str) -> list[Object]:
        return []

    async def kueue_version(self) -> str:
        raise ApiError(404, "NotFound", "the server could not find the requested resource")

    async def workload_pages(self, version: str, namespace: str | None) -> AsyncIterator[tuple[list[Object], int]]:
        await self.kueue_version()
        yield [], 0

    async def watch_workloads(
        self, version: str, namespace: str | None, since: int
    ) -> AsyncIterator[tuple[str, Object]]:
        await self.kueue_version()
        yield "BOOKMARK", {}

    async def create_event(self, manifest: Object) -> None:
        self.events.append(manifest["reason"])


def _merged(old: Object, patch: Object) -> Object:
    merged = dict(old)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merged(merged[key], value)
        else:
            merged[key] = value
    return merged
