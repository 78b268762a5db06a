"""Requests to the API server, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from diffugen_operator.kube.api import PAGE, ApiError, Cluster, NotLeaderError
from diffugen_operator.kube.cache import Resource
from diffugen_operator.kube.connection import Connection
from diffugen_operator.kube.work_queue import Key
from diffugen_operator.settings import Settings
from diffugen_operator.telemetry.metrics import Metrics

JOB = {"metadata": {"namespace": "vision", "name": "j"}}


@dataclass
class ApiServer:
    """An HTTP server that returns prepared answers and records requests."""

    answers: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    """For each request, the client's port: another one is another connection."""
    falls_silent: bool = False
    """Whether a watch stays open without further events after its prepared answer."""
    never_answers: bool = False

    def will(self, body: Any, status: int = 200, **headers: str) -> ApiServer:
        self.answers.append((status, body, {name.replace("_", "-"): text for name, text in headers.items()}))
        return self

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        self.asked.append((request.method, request.path, dict(request.query), body))
        self.headers.append(dict(request.headers))
        self.ports.append(request.transport.get_extra_info("peername")[1] if request.transport else 0)
        if self.never_answers:
            await asyncio.sleep(60)
        status, answer, headers = self.answers.pop(0) if self.answers else (200, {}, {})
        end = "\n" if "watch" in request.query else ""
        if end and self.falls_silent:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(json.dumps(answer).encode() + b"\n")
            await asyncio.sleep(60)
        return web.Response(status=status, text=json.dumps(answer) + end, headers=headers)


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"  # type: ignore[attr-defined]  # the port is known only here
    yield server
    await runner.cleanup()


def a_kubeconfig(folder: Path, server: str) -> str:
    file = folder / "kubeconfig"
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "secret-token"}}],
    }
    file.write_text(yaml.safe_dump(config))
    return str(file)


@pytest.fixture
async def connection(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connection]:
    kubeconfig = a_kubeconfig(tmp_path, api.url)  # type: ignore[attr-defined]  # see above
    monkeypatch.setenv("KUBECONFIG", "")
    connection = Connection(Settings(kubeconfig=kubeconfig), Metrics().count_request)
    yield connection
    await connection.close()


async def ended(waits: Awaitable[object]) -> BaseException | None:
    """Return the exception with which this ends soon; fails if it does not end."""
    task = asyncio.ensure_future(waits)
    done, _ = await asyncio.wait({task}, timeout=5)
    task.cancel()
    assert done, "it does not end"
    return task.exception()


@pytest.fixture
def cluster(connection: Connection) -> Cluster:
    return Cluster(connection, Settings(namespaces=("vision",)))


def a_page(*names: str, version: int, more: str = "") -> dict[str, Any]:
    metadata = {"resourceVersion": str(version), **({"continue": more} if more else {})}
    return {"metadata": metadata, "items": [{"metadata": {"name": name}} for name in names]}


async def test_lists_are_paged_and_hold_only_our_objects(api: ApiServer, cluster: Cluster) -> None:
    api.will(a_page("a", "b", version=7, more="token")).will(a_page("c", version=7))

    pages = [page async for page in cluster.pages(Resource.JOBS, "vision")]

    assert [([obj["metadata"]["name"] for obj in page], version) for page, version in pages] == [
        (["a", "b"], 7),
        (["c"], 7),
    ]
    method, path, first, _ = api.asked[0]
    assert (method, path) == ("GET", "/apis/batch/v1/namespaces/vision/jobs")
    assert first == {"limit": str(PAGE), "labelSelector": "app.kubernetes.io/managed-by=diffugen-operator"}
    assert api.asked[1][2]["continue"] == "token"


async def test_a_job_is_created_with_strict_field_validation(api: ApiServer, cluster: Cluster) -> None:
    await cluster.create_job(JOB)

    assert api.asked == [("POST", "/apis/batch/v1/namespaces/vision/jobs", {"fieldValidation": "Strict"}, JOB)]


async def test_a_dry_run_is_as_strict_as_the_creation(api: ApiServer, cluster: Cluster) -> None:
    await cluster.dry_run_job(JOB)

    strict = {"fieldValidation": "Strict", "dryRun": "All"}
    assert api.asked == [("POST", "/apis/batch/v1/namespaces/vision/jobs", strict, JOB)]


async def test_a_status_is_merged_only_into_the_version_that_was_read(api: ApiServer, cluster: Cluster) -> None:
    await cluster.patch_status(Key("vision", "shapes"), "41", {"planned": True})

    method, path, _, body = api.asked[0]
    assert (method, path) == ("PATCH", "/apis/diffugen.dev/v1alpha1/namespaces/vision/labeleddatasets/shapes/status")
    assert body == {"metadata": {"resourceVersion": "41"}, "status": {"planned": True}}
    assert api.headers[0]["Content-Type"] == "application/merge-patch+json"


@pytest.mark.parametrize(("wait", "policy"), [(True, "Foreground"), (False, "Background")])
async def test_a_job_is_deleted_by_its_uid_and_its_pods_with_it(
    api: ApiServer, cluster: Cluster, wait: bool, policy: str
) -> None:
    await cluster.delete_job("vision", "j", "u-1", wait=wait)

    assert api.asked[0][3] == {"propagationPolicy": policy, "preconditions": {"uid": "u-1"}}


@pytest.mark.parametrize(("suspend", "mark"), [(True, "true"), (False, None)])
async def test_a_suspended_job_has_our_mark_until_it_is_resumed(
    api: ApiServer, cluster: Cluster, suspend: bool, mark: str | None
) -> None:
    await cluster.suspend_job("vision", "j", suspend=suspend)

    assert api.asked[0][3] == {
        "metadata": {"annotations": {"diffugen.dev/suspended": mark}},
        "spec": {"suspend": suspend},
    }
    assert api.headers[0]["Content-Type"] == "application/merge-patch+json", "null removes it"


@pytest.mark.parametrize("code", [404, 409])
async def test_deleting_a_missing_object_succeeds(api: ApiServer, cluster: Cluster, code: int) -> None:
    api.will({"reason": "NotFound"}, code)

    await cluster.delete_job("vision", "j", "u-1", wait=False)


async def test_reading_a_missing_object_returns_none(api: ApiServer, cluster: Cluster) -> None:
    api.will({}, 404).will({}, 404)

    assert await cluster.get(Resource.JOBS, "vision", "j") is None
    assert await cluster.get_config_map("vision", "o") is None


async def test_the_api_servers_message_and_retry_after_are_kept(api: ApiServer, cluster: Cluster) -> None:
    api.will({"reason": "TooManyRequests", "message": "slow down"}, 429, Retry_After="7")

    with pytest.raises(ApiError) as caught:
        await cluster.create_job(JOB)

    error = caught.value
    assert (error.code, error.reason, error.message, error.retry_after) == (429, "TooManyRequests", "slow down", 7)


async def test_an_answer_that_is_not_a_status_is_shown_unchanged(api: ApiServer, cluster: Cluster) -> None:
    api.will("bad gateway", 502)

    with pytest.raises(ApiError, match="bad gateway"):
        await cluster.create_job(JOB)


FOR_GOOD = {
    (422, "Invalid value"): True,
    (400, "strict decoding error"): True,
    (403, "admission webhook denied the request"): True,
    (403, 'pods "x" is forbidden: exceeded quota: gpus'): False,
    (403, 'User "x" cannot create resource "jobs"'): False,
    (403, "because it is being terminated"): False,
    (409, "exists"): False,
    (429, "slow down"): False,
    (500, "boom"): False,
}


@pytest.mark.parametrize(("code", "message"), FOR_GOOD)
def test_which_refusals_are_final(code: int, message: str) -> None:
    assert ApiError(code, "", message).for_good is FOR_GOOD[code, message]


async def test_an_answer_that_is_not_json_is_an_error(api: ApiServer, connection: Connection) -> None:
    cluster = Cluster(connection, Settings())
    api.will("a proxy's own page").will(["not", "an object"])

    for _ in range(2):
        with pytest.raises(aiohttp.ClientPayloadError):
            await cluster.get(Resource.JOBS, "vision", "j")


async def test_a_silent_watch_is_ended(api: ApiServer, connection: Connection) -> None:
    api.falls_silent = True
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "8"}}}
    watch = Cluster(connection, Settings(watch_silence=0.2)).watch(Resource.JOBS, "vision", 7)
    api.will(bookmark)

    assert await anext(watch) == ("BOOKMARK", bookmark["object"])
    assert isinstance(await ended(anext(watch)), TimeoutError)


async def test_a_silent_watch_is_ended_although_its_connection_pool_was_closed(
    api: ApiServer, connection: Connection
) -> None:
    """Closing a pool ends the timers of its requests without an error."""
    api.falls_silent = True
    watch = Cluster(connection, Settings(watch_silence=0.2)).watch(Resource.JOBS, "vision", 7)
    api.will({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "8"}}})
    await anext(watch)

    waits = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    await (await connection.session()).close()

    assert isinstance(await ended(waits), TimeoutError)


async def test_a_watch_whose_answer_never_begins_is_ended(api: ApiServer, connection: Connection) -> None:
    api.never_answers = True

    watch = Cluster(connection, Settings(watch_silence=0.2)).watch(Resource.JOBS, "vision", 7)

    assert isinstance(await ended(anext(watch)), TimeoutError)


async def test_of_kueues_workloads_only_those_of_jobs_are_read(api: ApiServer, cluster: Cluster) -> None:
    api.will(a_page("w", version=7)).will({"type": "BOOKMARK", "object": {}}).will({"items": []})

    _ = [page async for page in cluster.workload_pages("v1beta2", None)]
    _ = [event async for event in cluster.watch_workloads("v1beta2", "vision", 7)]
    await cluster.workloads_of("v1beta2", "vision", "uid-of-j")

    assert [(path, params.get("labelSelector")) for _, path, params, _ in api.asked] == [
        ("/apis/kueue.x-k8s.io/v1beta2/workloads", "kueue.x-k8s.io/job-uid"),
        ("/apis/kueue.x-k8s.io/v1beta2/namespaces/vision/workloads", "kueue.x-k8s.io/job-uid"),
        ("/apis/kueue.x-k8s.io/v1beta2/namespaces/vision/workloads", "kueue.x-k8s.io/job-uid=uid-of-j"),
    ]


@pytest.mark.parametrize(
    ("status", "body", "installed"),
    [
        (200, {"resources": [{"name": "labeleddatasets"}]}, True),
        (200, {"resources": []}, False),
        (404, {}, False),
    ],
)
async def test_whether_the_crd_is_installed(
    api: ApiServer, cluster: Cluster, status: int, body: Any, installed: bool
) -> None:
    api.will(body, status)

    assert await cluster.serves_datasets() is installed


async def test_requests_carry_the_token_and_a_user_agent(api: ApiServer, cluster: Cluster) -> None:
    await cluster.create_job(JOB)

    assert api.headers[0]["Authorization"] == "Bearer secret-token"
    assert api.headers[0]["User-Agent"].startswith("diffugen-operator/")


async def test_our_requests_outlive_the_session_that_kopf_closes(api: ApiServer, connection: Connection) -> None:
    cluster = Cluster(connection, Settings())
    lent = await connection.lend()
    await lent.aiohttp_session.close()

    await cluster.create_job(JOB)

    assert len(api.asked) == 1


async def test_without_the_lease_writes_are_refused_and_reads_are_allowed(
    api: ApiServer, connection: Connection
) -> None:
    cluster = Cluster(connection, Settings(), left=lambda: 0.0)
    api.will({"kind": "Job"})

    with pytest.raises(NotLeaderError):
        await cluster.create_job(JOB)
    assert api.asked == []

    assert await cluster.get(Resource.JOBS, "vision", "j") == {"kind": "Job"}


async def test_the_timeout_of_a_write_is_at_most_the_rest_of_the_lease(api: ApiServer, connection: Connection) -> None:
    cluster = Cluster(connection, Settings(), left=lambda: 1e-9)

    with pytest.raises(TimeoutError):
        await cluster.create_job(JOB)


async def test_a_request_that_is_never_answered_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = Settings(kubeconfig=a_kubeconfig(tmp_path, f"http://127.0.0.1:{port}"), request_timeout=0.1)
    monkeypatch.setenv("KUBECONFIG", "")
    counted: list[tuple[str, str]] = []
    connection = Connection(settings, lambda verb, code: counted.append((verb, code)))
    await connection.lend()

    with pytest.raises(TimeoutError):
        await Cluster(connection, settings).create_job(JOB)
    assert counted == [("POST", "error")]

    await connection.close()
    over.set()
    server.close()
    await server.wait_closed()
