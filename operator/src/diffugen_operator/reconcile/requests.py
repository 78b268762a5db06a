"""What a reconcile needs from the cluster: requests to the API server, and the progress of running pods.

`kube.api.Cluster` and `reconcile.pod_progress.Scraper` are the implementations; tests have their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Protocol

from diffugen_operator.kube.cache import Object, Resource
from diffugen_operator.kube.work_queue import Key
from diffugen_operator.observed.pods import Pod
from diffugen_operator.observed.progress import Shard


class KueueRequests(Protocol):
    """Requests for Kueue's objects."""

    async def kueue_version(self) -> str:
        """Return the preferred version of Kueue's API. Raises ApiError 404 if Kueue is not installed."""

    async def workloads_of(self, version: str, namespace: str, job_uid: str) -> list[Object]:
        """Return Kueue's Workloads of a Job."""

    def workload_pages(self, version: str, namespace: str | None) -> AsyncIterator[tuple[list[Object], int]]:
        """Yield Kueue's Workloads of Jobs, page by page, with the version of the list."""

    def watch_workloads(self, version: str, namespace: str | None, since: int) -> AsyncIterator[tuple[str, Object]]:
        """Yield the type and the Workload of each change after the resourceVersion `since`."""


class Requests(KueueRequests, Protocol):
    """All requests of a reconcile. Each raises ApiError if the API server refuses it."""

    async def pods_of(self, namespace: str, job: str) -> list[Object]:
        """Return a Job's pods."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Return an object; None if it does not exist."""

    async def get_config_map(self, namespace: str, name: str) -> Object | None:
        """Return a ConfigMap; None if it does not exist."""

    async def create_config_map(self, manifest: Object) -> Object:
        """Create a ConfigMap."""

    async def delete_config_map(self, namespace: str, name: str) -> None:
        """Delete a ConfigMap if it exists."""

    async def create_job(self, manifest: Object) -> Object:
        """Create a Job."""

    async def dry_run_job(self, manifest: Object) -> Object:
        """Return the Job as the API server would create it; nothing is created."""

    async def suspend_job(self, namespace: str, name: str, *, suspend: bool) -> Object:
        """Set a Job's spec.suspend."""

    async def resize_job(self, namespace: str, name: str, parallelism: int) -> Object:
        """Set a Job's spec.parallelism."""

    async def delete_job(self, namespace: str, name: str, uid: str, *, wait: bool) -> None:
        """Delete a Job and its pods; with `wait`, the Job stays visible until they are gone."""

    async def patch_status(self, key: Key, version: str, patch: Mapping[str, Any]) -> Object:
        """Merge into a dataset's status, if the dataset still has this resourceVersion."""

    async def set_finalizers(self, key: Key, version: str, finalizers: Sequence[str]) -> Object:
        """Replace a dataset's finalizers, if it still has this resourceVersion."""


class PodProgress(Protocol):
    """The last reported progress of running pods."""

    def follow(self, key: Key, pods: Iterable[Pod]) -> Mapping[str, Shard]:
        """Return the last reported shard of each of these pods, by pod name, and ask the pods again."""

    def forget(self, key: Key) -> None:
        """Stop asking the pods of a dataset."""
