"""The operator's process: what it waits for before it begins, and how it handles failures."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import aiohttp
import kopf
import pytest

from diffugen_operator import process
from diffugen_operator.kube import dataset_events
from diffugen_operator.kube.api import ApiError, Cluster
from diffugen_operator.kube.cache import Object, Resource
from diffugen_operator.kube.child_events import Watch
from diffugen_operator.kube.work_queue import Key
from diffugen_operator.process import Operator, _spare_garbage_collector
from diffugen_operator.reconcile.reconciler import Reconciler
from diffugen_operator.settings import Settings
from diffugen_operator.telemetry.logs import configure
from tests.operator.lives import a_raw_dataset

FORBIDDEN = ApiError(403, "Forbidden", 'User "operator" cannot list resource "labeleddatasets"')


async def test_a_queue_that_hangs_fails_liveness(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, hangs = Operator(Settings(workers=1, stuck_after=0.2)), asyncio.Event()

    async def reconcile(_: Reconciler, key: Key) -> None:
        await hangs.wait()

    monkeypatch.setattr(Reconciler, "reconcile", reconcile)
    operator._queue.add(Key("vision", "hangs"))
    worker = asyncio.create_task(operator._work())
    await asyncio.sleep(0.05)
    assert operator._stuck() is None

    await asyncio.sleep(0.3)
    assert (operator._stuck() or "").startswith("a reconcile has taken")

    hangs.set()
    await asyncio.sleep(0.05)
    assert operator._stuck() is None, "it went on"
    worker.cancel()


async def test_a_queue_without_a_working_consumer_fails_liveness() -> None:
    operator = Operator(Settings(stuck_after=0.2))
    operator._queue.add(Key("vision", "waits"))
    assert operator._stuck() is None

    await asyncio.sleep(0.3)

    assert (operator._stuck() or "").startswith("the first dataset in the queue has waited")


async def test_log_lines_about_a_dataset_have_its_name_and_revision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = Operator(Settings())
    operator._cache.put(Resource.DATASETS, a_raw_dataset())
    operator._queue.add(Key("vision", "shapes"))

    async def refuse(*_: object) -> Object:
        raise ApiError(500, "InternalError", "etcd is away")

    monkeypatch.setattr(Cluster, "patch_status", refuse)
    configure(log_format="json", level="INFO")
    try:
        worker = asyncio.create_task(operator._work())
        await asyncio.sleep(0.1)
        worker.cancel()
        logging.getLogger("elsewhere").warning("of nobody")
    finally:
        logging.getLogger().handlers[:] = []

    failed, other = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert "etcd is away" in failed["message"]
    assert failed["dataset"] == "vision/shapes"
    assert len(failed["revision"]) >= 8
    assert "dataset" not in other


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (FORBIDDEN, 'User "operator" cannot list resource "labeleddatasets"; apply operator/rbac.yaml'),
        (
            ApiError(500, "InternalError", "etcd is away"),
            "The API server refuses the request: 500 InternalError: etcd is away",
        ),
        (aiohttp.ClientConnectionError("refused"), "The API server cannot be reached"),
    ],
)
async def test_a_refused_list_is_waited_for_and_reported_once(
    fault: Exception, words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    operator, faults = Operator(Settings()), [fault, fault]
    unready: list[str | None] = []

    async def serves_datasets(_: Cluster) -> bool:
        return True

    async def pages(_: Cluster, resource: Resource, namespace: str | None) -> AsyncIterator[tuple[list[Object], int]]:
        unready.append(operator._not_ready())
        if faults:
            raise faults.pop()
        yield [], 1

    monkeypatch.setattr(Cluster, "serves_datasets", serves_datasets)
    monkeypatch.setattr(Cluster, "pages", pages)
    monkeypatch.setattr(process, "_POLL_SECONDS", 0.0)

    await operator._prepare([])

    assert set(unready) == {"not everything is listed yet"}
    assert operator._not_ready() is None
    assert [words in record.getMessage() for record in caplog.records] == [True]


async def test_an_api_server_with_retry_after_is_not_asked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, pauses = [ApiError(429, "TooManyRequests", "later", retry_after=7), ApiError(500, "", "")], list[float]()

    async def question() -> bool:
        if busy:
            raise busy.pop(0)
        return True

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await Operator(Settings())._there(question)

    assert pauses == [7, 2]


async def test_resource_versions_that_go_back_begin_every_watch_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """etcd was restored from a snapshot: the watches would wait a long time for their old versions."""
    operator, version, ended, begun = Operator(Settings()), 90, [], []

    async def pages(_: Cluster, resource: Resource, namespace: str | None) -> AsyncIterator[tuple[list[Object], int]]:
        dataset = a_raw_dataset()
        dataset["metadata"] |= {"resourceVersion": str(version - 1), "generation": version}
        yield [dataset] if resource is Resource.DATASETS else [], version

    async def forever(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Cluster, "pages", pages)
    monkeypatch.setattr(Watch, "run", forever)
    monkeypatch.setattr(operator._connection, "end_watches", lambda: ended.append(True))
    monkeypatch.setattr(operator._datasets, "begin_again", lambda: begun.append(True))
    await operator._relist()
    tasks: list[asyncio.Task[None]] = []
    operator._start(tasks)
    version = 30

    await operator._list_and_look(Resource.JOBS)

    assert operator._watches[Resource.JOBS, None]._rewound_to == 30
    assert operator._resync_now.is_set(), "the other kinds are listed too"
    assert (len(ended), len(begun)) == (1, 1), "kopf's watch of datasets begins again, too"
    await operator._relist()
    assert (operator._cache.dataset(Key("vision", "shapes")) or {})["metadata"]["generation"] == 30
    assert operator._watches[Resource.PODS, None]._rewound_to == 30
    assert "The resourceVersions of jobs went back to 30" in caplog.text
    for task in tasks:
        task.cancel()


class KopfEnds:
    """A replacement for kopf.operator that ends as the test wants; the last call ends as after SIGTERM."""

    def __init__(self, *ends: Exception) -> None:
        self.ends, self.starts = list(ends), 0

    async def operator(self, **_: object) -> None:
        self.starts += 1
        if self.ends:
            raise self.ends.pop(0)


class KopfError(Exception):
    """Like kopf's own errors, which have the status of the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(f"answer {status}")
        self.status = status


async def test_kopf_is_started_again_after_any_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    operator = Operator(Settings())
    ends = KopfEnds(KopfError(410), KopfError(500), RuntimeError("an ERROR event"))
    monkeypatch.setattr(kopf, "operator", ends.operator)
    monkeypatch.setattr(dataset_events, "_SHORTEST_PAUSE", 0.0)

    await operator._datasets.run()

    assert ends.starts == 4
    assert "The watch of datasets ended: answer 410. It begins again in" in caplog.text


async def test_kopf_begins_again_from_a_list_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, starts = Operator(Settings()), list[int]()

    async def runs(**_: object) -> None:
        starts.append(len(starts))
        if len(starts) == 1:
            await asyncio.Event().wait()

    monkeypatch.setattr(kopf, "operator", runs)
    operator._datasets.begin_again()  # before it runs, there is nothing to begin again
    running = asyncio.create_task(operator._datasets.run())
    while not starts:  # noqa: ASYNC110 - kopf tells nobody that it runs
        await asyncio.sleep(0)
    operator._datasets.begin_again()
    await asyncio.wait({running}, timeout=5)

    assert starts == [0, 1]
    await running


async def test_nothing_is_listed_while_the_crd_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, lists = Operator(Settings(resync_interval=0.01)), asyncio.Queue[int]()

    async def relist() -> bool:
        lists.put_nowait(1)
        return True

    monkeypatch.setattr(operator, "_relist", relist)
    operator._datasets.crd_missing = True
    resync = asyncio.create_task(operator._resync())
    await asyncio.sleep(0.1)
    assert lists.empty()

    operator._datasets.crd_missing = False
    async with asyncio.timeout(5):
        await lists.get()
    resync.cancel()


async def test_every_watch_counts_its_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, tasks = Operator(Settings()), list[asyncio.Task[None]]()

    async def pages(_: Cluster, resource: Resource, namespace: str | None) -> AsyncIterator[tuple[list[Object], int]]:
        yield [], 1

    async def forever(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Cluster, "pages", pages)
    monkeypatch.setattr(Watch, "run", forever)
    await operator._relist()
    operator._start(tasks)
    watches = operator._watches.values()

    for count in (operator._connection._count_restart, operator._kueue._count, *(watch._count for watch in watches)):
        count("these", "ended")

    assert len(watches) == 2
    row = 'diffugen_operator_watch_restarts_total{reason="ended",resource="these"} 4.0'
    assert row in operator._page().decode()
    for task in tasks:
        task.cancel()


def test_a_dataset_is_looked_at_as_soon_as_kueue_says_something_else_about_its_job() -> None:
    operator = Operator(Settings())
    owner = {"kind": "LabeledDataset", "name": "shapes", "uid": "uid-of-shapes", "controller": True}
    metadata = {
        "namespace": "vision",
        "name": "j",
        "uid": "uid-of-j",
        "resourceVersion": "7",
        "ownerReferences": [owner],
    }
    operator._cache.put(Resource.JOBS, {"metadata": metadata})

    operator._kueue._changed("vision", "a Job of nobody")
    assert operator._queue.schedule.depth() == 0
    operator._kueue._changed("vision", "j")

    assert operator._queue.schedule.depth() == 1


def test_ages_are_measured_by_the_clock_of_the_api_server() -> None:
    operator, ahead = Operator(Settings()), timedelta(minutes=-10)
    operator._connection._ahead = ahead

    assert abs(operator._reconciler._now() - datetime.now(UTC) - ahead) < timedelta(minutes=1)


async def test_a_missing_crd_is_waited_for_in_one_sentence_and_readyz_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    operator, served, unready = Operator(Settings()), [False, False, True], list[str | None]()
    listed: list[Resource] = []
    ends = KopfEnds(KopfError(404))
    operator._listed = True

    async def serves_datasets(_: Cluster) -> bool:
        unready.append(operator._not_ready())
        return served.pop(0)

    async def pages(_: Cluster, resource: Resource, namespace: str | None) -> AsyncIterator[tuple[list[Object], int]]:
        listed.append(resource)
        yield [], 1

    monkeypatch.setattr(kopf, "operator", ends.operator)
    monkeypatch.setattr(Cluster, "serves_datasets", serves_datasets)
    monkeypatch.setattr(Cluster, "pages", pages)
    monkeypatch.setattr(process, "_POLL_SECONDS", 0.0)

    await operator._datasets.run()

    assert ends.starts == 2
    assert listed == list(Resource), "what happened meanwhile is found"
    assert set(unready) == {"the CRD labeleddatasets.diffugen.dev is not installed"}
    assert operator._not_ready() is None
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "The CRD is not installed; waiting for it."
    ]


def test_the_garbage_collector_skips_what_lasts_and_looks_less_often_at_the_rest() -> None:
    former = gc.get_threshold()
    try:
        _spare_garbage_collector()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold() > former
    finally:
        gc.unfreeze()
        gc.set_threshold(*former)
