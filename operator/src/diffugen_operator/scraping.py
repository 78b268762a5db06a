"""Asking running pods how far their shards are.

Pods serve Prometheus metrics at their own address; three lines of it are wanted. Pods are asked without any
credentials, side by side, each for a short time. One that does not answer is no error: completed indexes
are the floor of all progress.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from math import isfinite

import aiohttp

from diffugen_api.contract import METRIC_SHARD_DONE, METRIC_SHARD_SAMPLES, METRICS_PORT
from diffugen_operator.observed import Pod
from diffugen_operator.progress import Shard
from diffugen_operator.settings import Settings

MOST_BYTES = 256 * 1024
"""A page of metrics is a few kB; what sends more is not one of our pods."""


class Scraper:
    """Asks pods, over one session of its own: the API server's holds our token."""

    def __init__(self, settings: Settings) -> None:
        self._timeout = aiohttp.ClientTimeout(total=settings.scrape_timeout)
        self._slots = asyncio.Semaphore(settings.scrape_concurrency)
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, pods: Iterable[Pod]) -> dict[str, Shard]:
        """Return what the pods that answer say of their shards, by pod."""
        asked = [pod for pod in pods if pod.running and pod.address]
        answers = await asyncio.gather(*(self._ask(pod.address) for pod in asked))
        return {pod.name: shard for pod, shard in zip(asked, answers, strict=True) if shard is not None}

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, address: str) -> Shard | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False)
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{METRICS_PORT}/metrics"
        async with self._slots:
            try:
                async with self._session.get(url, timeout=self._timeout, allow_redirects=False) as response:
                    if response.status != 200:
                        return None
                    return read_shard((await _page(response.content)).decode(errors="replace"))
            except (aiohttp.ClientError, TimeoutError, OSError):
                return None


async def _page(content: aiohttp.StreamReader) -> bytes:
    """Return the page, or its first MOST_BYTES: one read returns what has arrived, be it a part."""
    page = bytearray()
    while len(page) < MOST_BYTES and (part := await content.read(MOST_BYTES - len(page))):
        page += part
    return bytes(page)


def read_shard(text: str) -> Shard | None:
    """Read the shard's progress from a page of metrics; None where it is not told."""
    values: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in (METRIC_SHARD_SAMPLES, METRIC_SHARD_DONE):
            try:
                values[name] = float(value)
            except ValueError:
                return None
    if len(values) < 2 or not all(map(isfinite, values.values())):
        return None
    return Shard(total=max(0, int(values[METRIC_SHARD_SAMPLES])), done=max(0, int(values[METRIC_SHARD_DONE])))
