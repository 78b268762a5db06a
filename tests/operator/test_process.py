"""What the process waits for before it begins."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import aiohttp
import pytest

from diffugen_operator import process
from diffugen_operator.kube.api import ApiError, Cluster
from diffugen_operator.kube.cache import Object, Resource
from diffugen_operator.kube.work_queue import Key
from diffugen_operator.process import Operator
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


async def test_a_line_that_nobody_takes_from_fails_liveness() -> None:
    operator = Operator(Settings(stuck_after=0.2))
    operator._queue.add(Key("vision", "waits"))
    assert operator._stuck() is None

    await asyncio.sleep(0.3)

    assert (operator._stuck() or "").startswith("the first dataset in the queue has waited")


async def test_lines_about_a_dataset_have_its_name_and_revision_whoever_writes_them(
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
async def test_a_list_that_is_refused_is_waited_for_and_reported_once(
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


async def test_an_api_server_that_says_when_to_come_again_is_not_asked_before(monkeypatch: pytest.MonkeyPatch) -> None:
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
