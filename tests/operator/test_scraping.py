"""Asking pods for their progress, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from diffugen_api.contract import METRICS_PORT
from diffugen_operator.observed import Pod
from diffugen_operator.progress import Shard
from diffugen_operator.scraping import Scraper, read_shard
from diffugen_operator.settings import Settings

PAGE = """# HELP diffugen_shard_samples Samples of this shard.
# TYPE diffugen_shard_samples gauge
diffugen_shard_samples 8.0
# TYPE diffugen_shard_samples_done gauge
diffugen_shard_samples_done 3.0
diffugen_images_drawn_total 3.0
"""


@pytest.mark.parametrize(
    ("text", "shard"),
    [
        (PAGE, Shard(total=8, done=3)),
        ("", None),
        ("diffugen_shard_samples 8", None),
        ("diffugen_shard_samples x\ndiffugen_shard_samples_done 1", None),
        ("<html>not ours</html>", None),
        ("diffugen_shard_samples 8\ndiffugen_shard_samples_done NaN", None),
        ("diffugen_shard_samples +Inf\ndiffugen_shard_samples_done 1", None),
        ("diffugen_shard_samples 8\ndiffugen_shard_samples_done -3", Shard(total=8, done=0)),
    ],
)
def test_reading_a_page(text: str, shard: Shard | None) -> None:
    assert read_shard(text) == shard


def a_pod(name: str, address: str, *, running: bool = True) -> Pod:
    state: dict[str, Any] = {"running": {}} if running else {"waiting": {}}
    return Pod.read(
        {
            "metadata": {"name": name},
            "status": {
                "phase": "Running" if running else "Pending",
                "podIP": address,
                "containerStatuses": [{"name": "generator", "state": state}],
            },
        }
    )


@pytest.fixture
async def scraper() -> AsyncIterator[Scraper]:
    scraper = Scraper(Settings(scrape_timeout=0.5))
    yield scraper
    await scraper.close()


@pytest.fixture
async def seen() -> AsyncIterator[list[web.Request]]:
    """A pod at 127.0.77.1 that answers; the requests that it got."""
    requests: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        response = web.StreamResponse()
        await response.prepare(request)
        for part in PAGE.splitlines(keepends=True):  # as a slow network has it
            await response.write(part.encode())
            await asyncio.sleep(0.02)
        return response

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.77.1", METRICS_PORT).start()
    yield requests
    await runner.cleanup()


async def test_pods_that_answer_are_counted_and_others_are_no_error(scraper: Scraper, seen: list[web.Request]) -> None:
    pods = [a_pod("well", "127.0.77.1"), a_pod("away", "127.0.77.2"), a_pod("not yet", "127.0.77.1", running=False)]

    assert await scraper.ask(pods) == {"well": Shard(total=8, done=3)}
    assert len(seen) == 1


async def test_pods_are_asked_without_credentials(scraper: Scraper, seen: list[web.Request]) -> None:
    await scraper.ask([a_pod("well", "127.0.77.1")])

    assert "Authorization" not in seen[0].headers
