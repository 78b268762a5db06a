"""Probes and metrics over real HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.request
from collections.abc import AsyncIterator

import aiohttp
import pytest

from diffugen_operator.telemetry.metrics import Metrics
from diffugen_operator.telemetry.probes import Server


class Health:
    stuck: str | None = None
    not_ready: str | None = "not everything is listed yet"


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def url(health: Health) -> AsyncIterator[str]:
    metrics = Metrics()
    metrics.count_request("GET", "200")
    metrics.watch_leader(lambda: True)
    server = Server(live=lambda: health.stuck, ready=lambda: health.not_ready, page=metrics.page)
    port = await server.start("127.0.0.1", 0)
    yield f"http://127.0.0.1:{port}"
    await server.stop()


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_the_process_is_ready_after_the_first_list(url: str, health: Health) -> None:
    assert await get(f"{url}/readyz") == (503, "not everything is listed yet\n")
    health.not_ready = None
    assert await get(f"{url}/readyz") == (200, "ok\n")


async def test_a_reconcile_that_hangs_fails_liveness(url: str, health: Health) -> None:
    assert await get(f"{url}/livez") == (200, "ok\n")
    health.stuck = "a reconcile has taken 400 s"
    assert (await get(f"{url}/livez"))[0] == 503


def test_a_hanging_event_loop_answers_no_probe() -> None:
    loop, server = asyncio.new_event_loop(), Server(live=lambda: None, ready=lambda: None, page=lambda: b"")
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        port = asyncio.run_coroutine_threadsafe(server.start("127.0.0.1", 0), loop).result(10)
        assert livez(port, timeout=10) == 200

        loop.call_soon_threadsafe(time.sleep, 2.0)
        with pytest.raises(OSError, match="timed out"):
            livez(port, timeout=0.5)

        assert livez(port, timeout=10) == 200, "it goes on"
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def livez(port: int, timeout: float) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=timeout) as answer:
        status: int = answer.status
        return status


async def test_metrics_are_served_without_a_dataset_in_any_label(url: str) -> None:
    status, text = await get(f"{url}/metrics")

    assert status == 200
    assert 'diffugen_operator_api_requests_total{code="200",verb="GET"} 1.0' in text
    assert "diffugen_operator_leader 1.0" in text
    assert "namespace=" not in text
