"""What the process waits for before it begins."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from diffugen_operator import running
from diffugen_operator.cache import Object, Resource
from diffugen_operator.cluster import ApiError, Cluster
from diffugen_operator.running import Operator
from diffugen_operator.settings import Settings

FORBIDDEN = ApiError(403, "Forbidden", 'User "operator" cannot list resource "labeleddatasets"')


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (FORBIDDEN, 'User "operator" cannot list resource "labeleddatasets"; apply operator/rbac.yaml'),
        (ApiError(500, "InternalError", "etcd is away"), "The API server refuses: 500 InternalError: etcd is away"),
        (aiohttp.ClientConnectionError("refused"), "The API server cannot be reached"),
    ],
)
async def test_a_list_that_is_refused_is_waited_for_and_said_once(
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
    monkeypatch.setattr(running, "_POLL_SECONDS", 0.0)

    await operator._prepare([])

    assert set(unready) == {"not everything is listed yet"}
    assert operator._not_ready() is None
    assert [words in record.getMessage() for record in caplog.records] == [True]
