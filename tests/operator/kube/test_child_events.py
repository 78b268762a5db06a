"""The operator's own watch of Jobs and pods: it resumes after it ends; where it cannot, the objects are listed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from diffugen_operator.kube import child_events
from diffugen_operator.kube.api import ApiError, Cluster
from diffugen_operator.kube.cache import Cache, Object, Resource
from diffugen_operator.kube.child_events import Watch, Watchable
from diffugen_operator.kube.connection import WatchEndedError
from diffugen_operator.kube.dataset_events import Inbox
from diffugen_operator.kube.work_queue import Key, WorkQueue
from diffugen_operator.settings import Settings
from tests.operator.kube.test_api import ApiServer, api, connection  # noqa: F401  (fixtures)
from tests.operator.kube.test_cache import a_dataset, a_job

KEY = Key("vision", "shapes")
Event = tuple[str, Object]


class Scripted(Watchable):
    """Watches that end where the test wants; the last one stays open."""

    def __init__(self, *watches: list[Event | Exception]) -> None:
        self.watches = list(watches)
        self.begun_at: list[int] = []
        self.over = asyncio.Event()
        self.reached = 1000
        self.reached_by_datasets = 1000

    async def version(self, resource: Resource, namespace: str | None) -> int:
        return self.reached_by_datasets if resource is Resource.DATASETS else self.reached

    async def watch(self, resource: Resource, namespace: str | None, version: int) -> AsyncIterator[Event]:
        self.begun_at.append(version)
        if not self.watches:
            self.over.set()
            await asyncio.Event().wait()
        for item in self.watches.pop(0):
            if isinstance(item, Exception):
                raise item
            yield item


class Watched:
    """A watch with its cache and queue."""

    def __init__(self, cluster: Watchable) -> None:
        self.cluster, self.cache = cluster, Cache()
        self.queue = WorkQueue(clock=lambda: 0.0, backoff_base=1, backoff_limit=1)
        self.cache.put(Resource.DATASETS, a_dataset())
        self.lists = 0
        self.restarts: list[str] = []
        self.rewound: list[int] = []
        self.watch = Watch(
            cluster=cluster,
            inbox=Inbox(self.cache, self.queue),
            resource=Resource.JOBS,
            namespace="vision",
            relist=self.relist,
            count=lambda _, reason: self.restarts.append(reason),
            rewound=self.rewound.append,
        )

    async def relist(self, resource: Resource) -> Mapping[str | None, int]:
        assert resource is Resource.JOBS
        self.lists += 1
        if self.lists == 1:
            raise ApiError(500, "InternalError", "etcd is away")
        return {"vision": 90}

    async def runs_until(self, over: asyncio.Event) -> None:
        task = asyncio.create_task(self.watch.run(10))
        await asyncio.wait_for(over.wait(), 5)
        task.cancel()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_events, "_SHORTEST_PAUSE", 0.0)


def a_bookmark(version: int) -> Event:
    return "BOOKMARK", {"metadata": {"resourceVersion": str(version)}}


def too_old() -> Event:
    return "ERROR", {"code": 410, "reason": "Expired", "message": "too old resource version"}


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        pytest.param([], "ended", id="as watches do"),
        pytest.param([aiohttp.ClientPayloadError("cut")], "interrupted", id="cut"),
        pytest.param([TimeoutError()], "silent", id="silent"),
        pytest.param([ApiError(429, "TooManyRequests", "later")], "refused", id="refused"),
        pytest.param([ApiError(401, "Unauthorized", "")], "unauthorized", id="unauthorized"),
        pytest.param([("ERROR", {"code": 500, "message": "etcd"})], "refused", id="an error in the stream"),
        pytest.param([WatchEndedError()], "login", id="a new login"),
    ],
)
async def test_a_watch_that_ends_resumes_from_its_last_version(end: list[Event | Exception], reason: str) -> None:
    cluster = Scripted([("ADDED", a_job(version=12)), a_bookmark(30), *end], [("DELETED", a_job(version=31))])
    watched = Watched(cluster)

    await watched.runs_until(cluster.over)

    assert cluster.begun_at == [10, 30, 31]
    assert watched.cache.jobs_of(KEY, "uid-of-shapes") == []
    assert watched.queue.schedule.depth() == 1
    assert watched.lists == 0
    assert watched.restarts == [reason, "ended"]


async def test_after_two_watches_without_events_the_objects_are_listed_again() -> None:
    cluster = Scripted([TimeoutError()], [a_bookmark(30), TimeoutError()], [TimeoutError()])
    watched = Watched(cluster)

    await watched.runs_until(cluster.over)

    assert cluster.begun_at == [10, 10, 30, 90]


async def test_a_watch_resumes_from_the_version_it_is_rewound_to() -> None:
    cluster = Scripted([a_bookmark(30), WatchEndedError()])
    watched = Watched(cluster)
    watched.watch.rewind(5)

    await watched.runs_until(cluster.over)

    assert cluster.begun_at == [10, 5]


@pytest.mark.parametrize(
    "end",
    [
        too_old(),
        ApiError(410, "Expired", "too old"),
        ApiError(504, "Timeout", "Too large resource version: 90, current: 30"),
    ],
)
async def test_a_version_that_is_gone_is_listed_again_until_that_succeeds(end: Event | Exception) -> None:
    cluster = Scripted([end])
    watched = Watched(cluster)

    await watched.runs_until(cluster.over)

    assert cluster.begun_at == [10, 90]
    assert watched.lists == 2


async def test_a_watch_selects_our_objects_with_bookmarks_and_reads_objects_of_any_length(
    api: ApiServer,  # noqa: F811
    connection: Any,  # noqa: F811
) -> None:
    job = a_job(version=12)
    job["metadata"]["annotations"] = {"long": "x" * 300_000}
    api.will({"type": "ADDED", "object": job})
    cluster = Cluster(connection, Settings(namespaces=("vision",)))

    watch = cluster.watch(Resource.JOBS, "vision", 7)
    async with asyncio.timeout(5):
        seen = [event async for event in watch]

    method, path, params, _ = api.asked[0]
    assert (method, path) == ("GET", "/apis/batch/v1/namespaces/vision/jobs")
    assert params == {
        "watch": "true",
        "resourceVersion": "7",
        "allowWatchBookmarks": "true",
        "labelSelector": "app.kubernetes.io/managed-by=diffugen-operator",
    }
    assert seen == [("ADDED", job)]


async def test_after_an_interruption_a_watch_notices_that_versions_went_back() -> None:
    """A watch from a version that the API server has not reached is silent, so its silence would be waited for."""
    cluster = Scripted([a_bookmark(500), aiohttp.ClientConnectionError("restarted")])
    cluster.reached = 300
    watched = Watched(cluster)

    await watched.runs_until(cluster.over)

    assert cluster.begun_at == [10, 90]
    assert watched.rewound == [90]


async def test_versions_of_datasets_that_went_back_are_noticed_too() -> None:
    """A watch without changes may be at a version that was before the snapshot, or that is reached again by now."""
    cluster = Scripted([a_bookmark(80), aiohttp.ClientConnectionError("restarted")])
    watched = Watched(cluster)
    watched.cache.put(Resource.DATASETS, a_dataset(version=500))
    cluster.reached_by_datasets = 300

    await watched.runs_until(cluster.over)

    assert cluster.begun_at == [10, 90]
    assert watched.rewound == [1000]


async def test_an_interruption_alone_causes_no_list() -> None:
    cluster = Scripted([a_bookmark(500), aiohttp.ClientConnectionError("a proxy's")])
    watched = Watched(cluster)

    await watched.runs_until(cluster.over)

    assert (cluster.begun_at, watched.lists, watched.rewound) == ([10, 500], 0, [])
