"""All requests to the API server, except kopf's watch.

Nothing is retried here. A failed request fails its reconcile, which is repeated after a pause and observes everything
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from math import inf
from typing import Any

import aiohttp
import orjson

from diffugen_api.contract import ANNOTATION_SUSPENDED, GROUP, LABEL_MANAGED_BY, MANAGED_BY, PLURAL, VERSION
from diffugen_operator.kube.cache import Object, Resource
from diffugen_operator.kube.connection import TRANSPORT_ERRORS, Connection, WatchEndedError
from diffugen_operator.kube.work_queue import Key
from diffugen_operator.settings import Settings

PAGE = 40
"""Objects in one page of a list: a page is decoded as a whole, and its size adds to the peak of memory."""
_OURS = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
_KUEUE = "kueue.x-k8s.io"
KUEUE_JOB_UID = f"{_KUEUE}/job-uid"
"""Kueue's label on the Workload of a Job: the Job's uid."""
_OF_JOBS = {"labelSelector": KUEUE_JOB_UID}
_ROOTS = {
    Resource.DATASETS: f"/apis/{GROUP}/{VERSION}",
    Resource.JOBS: "/apis/batch/v1",
    Resource.PODS: "/api/v1",
}


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float = 0) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def version_ahead(self) -> bool:
        """Whether a watch began at a version that the API server has not reached, because its versions went back."""
        return "Too large resource version" in self.message

    @property
    def for_good(self) -> bool:
        """Whether the same request will be refused again."""
        if self.code == 403:
            # Quotas are freed and permissions granted; the deletion of a namespace deletes the dataset too.
            passing = ("exceeded quota", "cannot create resource", "is being terminated")
            return not any(words in self.message for words in passing)
        return self.code in (400, 413, 422)

    @property
    def namespace_goes(self) -> bool:
        """Whether nothing can be created because the namespace is being deleted."""
        return self.code == 403 and "is being terminated" in self.message


class NotLeaderError(Exception):
    """Nothing is written, because another operator may be the leader by now."""


REQUEST_ERRORS = (ApiError, NotLeaderError, *TRANSPORT_ERRORS)
"""All that a request to the API server may raise."""


class Cluster:
    """The requests that the operator makes."""

    def __init__(self, connection: Connection, settings: Settings, *, left: Callable[[], float] = lambda: inf) -> None:
        """`left`: for how many seconds this process may write."""
        self._connection = connection
        self._settings = settings
        self._left = left

    async def serves_datasets(self) -> bool:
        """Return whether the CRD is installed."""
        try:
            listed = await self._request("GET", _ROOTS[Resource.DATASETS])
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return any(resource["name"] == PLURAL for resource in listed["resources"])

    @property
    def namespaces(self) -> Sequence[str | None]:
        """The namespaces that are served; None means all namespaces."""
        return self._settings.namespaces or (None,)

    async def pages(self, resource: Resource, namespace: str | None) -> AsyncIterator[tuple[list[Object], int]]:
        """Yield the objects of a kind that the operator watches, page by page, with the version of the list."""
        async for page in self._pages(_path(resource, namespace), _selection(resource)):
            yield page

    async def version(self, resource: Resource, namespace: str | None) -> int:
        """Return the resourceVersion that the API server has reached."""
        params = {"limit": "1", **_selection(resource)}
        page = await self._request("GET", _path(resource, namespace), params=params)
        return int(page["metadata"]["resourceVersion"])

    async def _pages(self, path: str, selection: Mapping[str, str]) -> AsyncIterator[tuple[list[Object], int]]:
        params = {"limit": str(PAGE), **selection}
        while True:
            page = await self._request("GET", path, params=params)
            yield page["items"], int(page["metadata"]["resourceVersion"])
            token = page["metadata"].get("continue")
            if not token:
                return
            params["continue"] = token

    async def watch(self, resource: Resource, namespace: str | None, version: int) -> AsyncIterator[tuple[str, Object]]:
        """Yield the type and the object of each change after `version`, until the API server ends the watch."""
        async for event in self._changes(_path(resource, namespace), _selection(resource), version):
            yield event

    async def _changes(
        self, path: str, selection: Mapping[str, str], version: int
    ) -> AsyncIterator[tuple[str, Object]]:
        params = {"watch": "true", "resourceVersion": str(version), "allowWatchBookmarks": "true", **selection}
        silence = self._settings.watch_silence
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._settings.request_timeout)
        session = await self._connection.session()
        url = self._connection.server + path
        async with _within(silence, session.get(url, params=params, timeout=timeout)) as response:
            if response.status >= 400:
                raise _error(response.status, await response.read(), response.headers)
            unread = b""
            # Not line by line: aiohttp bounds a line's length, and an object may be longer.
            while True:
                try:
                    async with asyncio.timeout(silence):  # aiohttp's own timer ends with its pool; this one does not.
                        chunk = await response.content.readany()
                except aiohttp.ClientConnectionError:
                    if self._connection.was_ended(response):
                        raise WatchEndedError from None
                    raise
                if not chunk:
                    return
                *lines, unread = (unread + chunk).split(b"\n")
                for line in lines:
                    event = _read(line)
                    yield event["type"], event["object"]

    async def pods_of(self, namespace: str, job: str) -> list[Object]:
        """Return a Job's pods as the API server knows them now."""
        params = {"labelSelector": f"batch.kubernetes.io/job-name={job}"}
        listed = await self._request("GET", _path(Resource.PODS, namespace), params=params)
        items: list[Object] = listed["items"]
        return items

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Return an object, or None if it does not exist."""
        return await self._get(_path(resource, namespace, name))

    async def get_config_map(self, namespace: str, name: str) -> Object | None:
        """Return a ConfigMap, or None if it does not exist."""
        return await self._get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")

    async def create_job(self, manifest: Object) -> Object:
        """Create a Job; fields that Kubernetes does not know are an error."""
        return await self._create_job(manifest, {})

    async def dry_run_job(self, manifest: Object) -> Object:
        """Return the Job as the API server would create it; nothing is created."""
        return await self._create_job(manifest, {"dryRun": "All"})

    async def _create_job(self, manifest: Object, params: Mapping[str, str]) -> Object:
        path = _path(Resource.JOBS, manifest["metadata"]["namespace"])
        return await self._request("POST", path, params={"fieldValidation": "Strict", **params}, body=manifest)

    async def create_config_map(self, manifest: Object) -> Object:
        """Create a ConfigMap."""
        namespace = manifest["metadata"]["namespace"]
        return await self._request("POST", f"/api/v1/namespaces/{namespace}/configmaps", body=manifest)

    async def delete_config_map(self, namespace: str, name: str) -> None:
        """Delete a ConfigMap, if it is there."""
        await self._delete(f"/api/v1/namespaces/{namespace}/configmaps/{name}", {})

    async def suspend_job(self, namespace: str, name: str, *, suspend: bool) -> Object:
        """Set a Job's spec.suspend, and mark the Job as suspended by the operator, or remove the mark."""
        mark = {ANNOTATION_SUSPENDED: "true" if suspend else None}
        patch = {"metadata": {"annotations": mark}, "spec": {"suspend": suspend}}
        return await self._patch(_path(Resource.JOBS, namespace, name), patch)

    async def resize_job(self, namespace: str, name: str, parallelism: int) -> Object:
        """Set a Job's spec.parallelism."""
        return await self._patch(_path(Resource.JOBS, namespace, name), {"spec": {"parallelism": parallelism}})

    async def delete_job(self, namespace: str, name: str, uid: str, *, wait: bool) -> None:
        """Delete a Job and its pods; with `wait`, the Job stays visible until they are gone."""
        policy = "Foreground" if wait else "Background"
        options = {"propagationPolicy": policy, "preconditions": {"uid": uid}}
        await self._delete(_path(Resource.JOBS, namespace, name), options)

    async def patch_status(self, key: Key, version: str, patch: Mapping[str, Any]) -> Object:
        """Merge into a dataset's status, if the dataset still has this resourceVersion."""
        path = f"{_path(Resource.DATASETS, key.namespace, key.name)}/status"
        return await self._patch(path, {"metadata": {"resourceVersion": version}, "status": patch})

    async def set_finalizers(self, key: Key, version: str, finalizers: Sequence[str]) -> Object:
        """Replace a dataset's finalizers, if it still has this resourceVersion; the last one's removal deletes it."""
        metadata = {"resourceVersion": version, "finalizers": list(finalizers)}
        return await self._patch(_path(Resource.DATASETS, key.namespace, key.name), {"metadata": metadata})

    async def kueue_version(self) -> str:
        """Return the version of Kueue's API that the cluster prefers. Raises ApiError 404 if Kueue is not installed."""
        group = await self._request("GET", f"/apis/{_KUEUE}")
        return str(group["preferredVersion"]["version"])

    async def workloads_of(self, version: str, namespace: str, job_uid: str) -> list[Object]:
        """Return Kueue's Workloads of a Job."""
        params = {"labelSelector": f"{KUEUE_JOB_UID}={job_uid}"}
        items: list[Object] = (await self._request("GET", _workloads(version, namespace), params=params))["items"]
        return items

    async def workload_pages(self, version: str, namespace: str | None) -> AsyncIterator[tuple[list[Object], int]]:
        """Yield Kueue's Workloads of Jobs, page by page, with the version of the list."""
        async for page in self._pages(_workloads(version, namespace), _OF_JOBS):
            yield page

    async def watch_workloads(
        self, version: str, namespace: str | None, since: int
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield the type and the Workload of each change after the resourceVersion `since`."""
        async for event in self._changes(_workloads(version, namespace), _OF_JOBS, since):
            yield event

    async def create_event(self, manifest: Object) -> None:
        """Post an Event."""
        namespace = manifest["metadata"]["namespace"]
        await self._request("POST", f"/api/v1/namespaces/{namespace}/events", body=manifest)

    async def get_lease(self, namespace: str, name: str, *, within: float) -> Object | None:
        """Return a Lease, or None if it does not exist."""
        try:
            return await self._send("GET", f"{_leases(namespace)}/{name}", within=within)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def create_lease(self, manifest: Object, *, within: float) -> Object:
        """Create a Lease."""
        return await self._send("POST", _leases(manifest["metadata"]["namespace"]), body=manifest, within=within)

    async def replace_lease(self, manifest: Object, *, within: float) -> Object:
        """Replace a Lease, if it still has the manifest's resourceVersion."""
        metadata = manifest["metadata"]
        path = f"{_leases(metadata['namespace'])}/{metadata['name']}"
        return await self._send("PUT", path, body=manifest, within=within)

    async def _get(self, path: str) -> Object | None:
        try:
            return await self._request("GET", path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def _delete(self, path: str, options: Object) -> None:
        try:
            await self._request("DELETE", path, body=options)
        except ApiError as error:
            # 409: another object has this name by now (the uid differs).
            if error.code not in (404, 409):
                raise

    async def _patch(self, path: str, body: Object) -> Object:
        return await self._request("PATCH", path, body=body, content_type="application/merge-patch+json")

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        within = self._settings.request_timeout
        if method != "GET":
            if (left := self._left()) <= 0:
                raise NotLeaderError("this process is not the leader: nothing is written")
            within = min(within, left)
        return await self._send(method, path, params=params, body=body, content_type=content_type, within=within)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        within: float,
    ) -> Object:
        session = await self._connection.session()
        async with session.request(
            method,
            self._connection.server + path,
            params=params,
            data=None if body is None else orjson.dumps(body),
            headers={"Content-Type": content_type, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=within),
        ) as response:
            text = await response.read()
            if response.status >= 400:
                raise _error(response.status, text, response.headers)
            return _read(text) if text else {}


@asynccontextmanager
async def _within(
    seconds: float, request: AbstractAsyncContextManager[aiohttp.ClientResponse]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Enter a request's response, if it comes within so many seconds."""
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(seconds):
            response = await stack.enter_async_context(request)
        yield response


def _read(text: bytes) -> Object:
    """Return a JSON object. Raises ClientPayloadError for any other answer, such as a proxy's error page."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise aiohttp.ClientPayloadError(f"the answer is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise aiohttp.ClientPayloadError("the answer is no JSON object")
    return found


def _selection(resource: Resource) -> dict[str, str]:
    return {} if resource is Resource.DATASETS else {"labelSelector": _OURS}


def _path(resource: Resource, namespace: str | None = None, name: str | None = None) -> str:
    parts: Sequence[str] = [_ROOTS[resource], *(["namespaces", namespace] if namespace else []), resource.value]
    return "/".join([*parts, name] if name else parts)


def _workloads(version: str, namespace: str | None) -> str:
    return f"/apis/{_KUEUE}/{version}/{f'namespaces/{namespace}/' if namespace else ''}workloads"


def _leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def _error(code: int, text: bytes, headers: Mapping[str, str]) -> ApiError:
    try:
        status = orjson.loads(text)
    except ValueError:
        status = {}
    if not isinstance(status, dict):
        status = {}
    message = status.get("message") or text[:300].decode(errors="replace")
    after = headers.get("Retry-After", "")
    return ApiError(code, status.get("reason") or "", message, float(after) if after.isdigit() else 0)
