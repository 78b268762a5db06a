"""Asking pods for their progress, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from diffugen_api.contract import METRICS_PORT
from diffugen_operator.kube.work_queue import Key
from diffugen_operator.observed.pods import Pod
from diffugen_operator.observed.progress import Shard
from diffugen_operator.reconcile.pod_progress import Scraper, read_shard
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
        ("diffugen_shard_samples 8\ndiffugen_shard_samples_done -3", None),
        ("diffugen_shard_samples 1e300\ndiffugen_shard_samples_done 1", None),
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


KEY, ANOTHER = Key("vision", "shapes"), Key("vision", "another")


async def heard(scraper: Scraper, pods: list[Pod], key: Key = KEY) -> dict[str, Shard]:
    """Poll until a pod has answered."""
    async with asyncio.timeout(10):
        while True:
            if shards := scraper.follow(key, pods):
                return shards
            await asyncio.sleep(0.01)


@pytest.fixture
async def seen() -> AsyncIterator[list[web.Request]]:
    """A pod at 127.0.77.1 that answers; yields the requests that it received."""
    requests: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        response = web.StreamResponse()
        await response.prepare(request)
        for part in PAGE.splitlines(keepends=True):  # as a slow network sends it
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

    assert await heard(scraper, pods) == {"well": Shard(total=8, done=3)}
    assert len(seen) == 1


async def test_pods_are_asked_without_credentials(scraper: Scraper, seen: list[web.Request]) -> None:
    await heard(scraper, [a_pod("well", "127.0.77.1")])

    assert "Authorization" not in seen[0].headers


async def test_of_a_page_without_end_only_the_beginning_is_read() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(PAGE.encode())
        while True:
            await response.write(b"# more\n" * 10_000)

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.77.4", METRICS_PORT).start()
    scraper = Scraper(Settings(scrape_timeout=5))

    assert await scraper.ask("127.0.77.4") == Shard(total=8, done=3)

    await scraper.close()
    await runner.cleanup()


@pytest.fixture
async def silent() -> AsyncIterator[list[float]]:
    """A pod at 127.0.77.3 that accepts connections and does not answer; yields the times of the requests."""
    asked: list[float] = []
    over = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(asyncio.get_running_loop().time())
        await over.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.77.3", METRICS_PORT)
    yield asked
    over.set()
    server.close()
    await server.wait_closed()


async def test_no_reconcile_waits_for_a_silent_pod(seen: list[web.Request], silent: list[float]) -> None:
    scraper = Scraper(Settings(scrape_timeout=60))
    pods = [a_pod("silent", "127.0.77.3"), a_pod("well", "127.0.77.1")]

    assert scraper.follow(KEY, pods) == {}, "at once"
    assert await heard(scraper, pods) == {"well": Shard(total=8, done=3)}
    assert await heard(scraper, pods[1:], ANOTHER) == {"well": Shard(total=8, done=3)}

    await scraper.close()
    assert len(silent) == 1


async def test_a_pod_is_asked_once_an_interval(seen: list[web.Request]) -> None:
    scraper = Scraper(Settings(scrape_interval=0.5))
    begin = asyncio.get_running_loop().time()
    while len(seen) < 3:
        scraper.follow(KEY, [a_pod("well", "127.0.77.1")])
        await asyncio.sleep(0.01)

    assert asyncio.get_running_loop().time() - begin >= 2 * 0.9 * 0.5
    await scraper.close()


async def test_pods_are_asked_shortly_before_the_next_reconcile() -> None:
    scraper, said, pods = Scraper(Settings(scrape_interval=0.5)), [1], [a_pod("well", "10.0.0.1")]

    async def ask(address: str) -> Shard:
        return Shard(total=8, done=said[-1])

    scraper.ask = ask  # type: ignore[method-assign]  # a pod for this test
    assert await heard(scraper, pods) == {"well": Shard(total=8, done=1)}
    said.append(2)
    assert scraper.follow(KEY, pods) == {"well": Shard(total=8, done=1)}

    await asyncio.sleep(0.5)

    assert scraper.follow(KEY, pods) == {"well": Shard(total=8, done=2)}
    await scraper.close()


async def test_a_silent_pod_is_asked_at_longer_and_longer_intervals(silent: list[float]) -> None:
    scraper = Scraper(Settings(scrape_interval=0.1, scrape_timeout=0.05))
    async with asyncio.timeout(20):
        while len(silent) < 4:
            assert scraper.follow(KEY, [a_pod("silent", "127.0.77.3")]) == {}
            await asyncio.sleep(0.01)

    pauses = [later - earlier for earlier, later in pairwise(silent)]
    assert [pause > least for pause, least in zip(pauses, (0.18, 0.36, 0.72), strict=True)] == [True] * 3
    await scraper.close()


async def test_a_pod_that_refuses_connections_is_asked_at_each_interval() -> None:
    scraper = Scraper(Settings(scrape_interval=0.02))
    refused = 0

    async def ask(address: str) -> Shard | None:
        nonlocal refused
        refused += 1
        if refused < 12:
            return await Scraper.ask(scraper, "127.0.77.4")
        return Shard(total=8, done=1)

    scraper.ask = ask  # type: ignore[method-assign]  # counts, and listens in the end
    async with asyncio.timeout(3):  # With ever longer pauses it would be 40 s.
        assert await heard(scraper, [a_pod("late", "127.0.77.4")]) == {"late": Shard(total=8, done=1)}
    await scraper.close()


class Crowd(Scraper):
    """Pods at 10.0.0.x that do not answer, and others that answer at once; counts how many are asked at a time."""

    def __init__(self) -> None:
        super().__init__(Settings(scrape_interval=0.02, scrape_timeout=60, scrape_concurrency=8))
        self.under_way, self.most, self.timeouts = 0, 0, 0

    async def ask(self, address: str) -> Shard | None:
        if not address.startswith("10.0.0."):
            return Shard(total=8, done=1)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.05)
        self.under_way -= 1
        self.timeouts += 1
        raise TimeoutError


async def test_many_silent_pods_leave_slots_for_those_that_answer() -> None:
    crowd, silent = Crowd(), [a_pod(f"silent-{n}", f"10.0.0.{n}") for n in range(40)]
    async with asyncio.timeout(10):
        while crowd.timeouts < 40:  # No pod was known to be silent; but never more than the slots are asked at a time.
            crowd.follow(KEY, silent)
            await asyncio.sleep(0.01)
    assert crowd.most == 8
    crowd.most = 0

    async with asyncio.timeout(10):
        while crowd.timeouts < 60:
            crowd.follow(KEY, silent)
            await asyncio.sleep(0.01)

    assert crowd.most == 2
    await crowd.close()


async def test_a_forgotten_pod_is_not_asked_again(seen: list[web.Request]) -> None:
    quick = Scraper(Settings(scrape_interval=0.05))
    await heard(quick, [a_pod("well", "127.0.77.1")])
    quick.follow(KEY, [a_pod("well", "127.0.77.1")])

    quick.forget(KEY)
    quick.follow(ANOTHER, [])
    asked = len(seen)
    await asyncio.sleep(0.2)

    assert len(seen) == asked
    await quick.close()
