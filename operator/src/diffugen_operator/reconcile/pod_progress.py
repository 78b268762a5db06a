"""Asks running pods how much of their shards is done.

Pods serve Prometheus metrics at their own address; two of their lines are needed. Pods are asked without credentials,
in parallel, with a short timeout each. A pod that does not answer causes no error: completed indexes are the lower
bound of all progress.

Nothing waits for a pod. A reconcile takes the last answers of its pods and lets them be asked again in the background,
shortly before the next reconcile is due. So silent pods delay no reconcile. They delay other pods only briefly: a pod
that did not answer is asked at longer and longer intervals, and only few such pods at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

import aiohttp

from diffugen_api.contract import METRIC_SHARD_DONE, METRIC_SHARD_SAMPLES, METRICS_PORT, MOST_SAMPLES
from diffugen_operator.kube.backoff import backoff
from diffugen_operator.kube.connection import TRANSPORT_ERRORS, lost_connections
from diffugen_operator.kube.work_queue import Key
from diffugen_operator.observed.pods import Pod
from diffugen_operator.observed.progress import Shard
from diffugen_operator.settings import Settings

MOST_BYTES = 256 * 1024
"""A page of metrics has a few kB; only another program sends more."""

LONGEST_PAUSE_SECONDS = 60.0
"""The longest pause until a silent pod is asked again, so that a repaired network is noticed soon."""

_BEFORE_THE_LOOK = 0.9
"""The part of the interval after which pods are asked again, so that the next reconcile has their answers."""


@dataclass(slots=True)
class _Asked:
    """A pod that is asked, and its last answer."""

    address: str = ""
    shard: Shard | None = None
    silences: int = 0
    """How often in a row it did not answer."""
    due: float = -inf


@dataclass(slots=True)
class _Followed:
    """A dataset whose pods are asked."""

    pods: dict[str, _Asked] = field(default_factory=dict)
    due: float = -inf
    round: asyncio.Task[None] | None = None


class Scraper:
    """Asks pods, over a session of its own, because the API server's session holds our token."""

    def __init__(self, settings: Settings) -> None:
        self._interval = settings.scrape_interval * _BEFORE_THE_LOOK
        self._timeout = aiohttp.ClientTimeout(total=settings.scrape_timeout)
        self._slots = asyncio.Semaphore(settings.scrape_concurrency)
        self._slots_for_silent = max(1, settings.scrape_concurrency // 4)
        self._followed: dict[Key, _Followed] = {}
        self._session: aiohttp.ClientSession | None = None

    def follow(self, key: Key, pods: Iterable[Pod]) -> dict[str, Shard]:
        """Return the last reported progress of these pods of a dataset, by pod name, and ask them again.

        Pods that are no longer passed are forgotten; if none is left, so is the dataset.
        """
        asked = [pod for pod in pods if pod.running and pod.address]
        if not asked:
            self.forget(key)
            return {}
        followed = self._followed.setdefault(key, _Followed())
        followed.pods = {pod.name: followed.pods.get(pod.name) or _Asked() for pod in asked}
        for pod in asked:
            followed.pods[pod.name].address = pod.address
        if followed.round is None or followed.round.done():
            followed.round = asyncio.create_task(self._round(followed), name=f"pods of {key}")
        return {name: pod.shard for name, pod in followed.pods.items() if pod.shard is not None}

    def forget(self, key: Key) -> None:
        """Stop asking the pods of a dataset."""
        followed = self._followed.pop(key, None)
        if followed is not None and followed.round is not None:
            followed.round.cancel()

    async def close(self) -> None:
        """Stop asking all pods, and close the session."""
        rounds = [followed.round for followed in self._followed.values() if followed.round is not None]
        for key in list(self._followed):
            self.forget(key)
        await asyncio.gather(*rounds, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def ask(self, address: str) -> Shard | None:
        """Return the progress that the pod at this address reports; None if it reports none."""
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False, middlewares=(lost_connections,))
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{METRICS_PORT}/metrics"
        async with self._session.get(url, timeout=self._timeout, allow_redirects=False) as response:
            if response.status != 200:
                return None
            return read_shard((await _page(response.content)).decode(errors="replace"))

    async def _round(self, followed: _Followed) -> None:
        """Ask a dataset's pods when they are due."""
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, followed.due - clock()))
        followed.due = clock() + self._interval
        heard = [pod for pod in followed.pods.values() if not pod.silences]
        silent = [pod for pod in followed.pods.values() if pod.silences and pod.due <= clock()]
        # Silent pods do not wait for a slot, because others would wait behind them: they wait for another round.
        silent = sorted(silent, key=lambda pod: pod.due)[: self._slots_for_silent]
        self._slots_for_silent -= len(silent)
        try:
            await asyncio.gather(*(self._hear(pod) for pod in [*heard, *silent]))
        finally:
            self._slots_for_silent += len(silent)

    async def _hear(self, pod: _Asked) -> None:
        """Ask a pod; if it does not answer, its last answer is kept."""
        async with self._slots:
            try:
                pod.shard = await self.ask(pod.address) or pod.shard
                pod.silences = 0
            except (*TRANSPORT_ERRORS, ValueError) as error:  # Or the answer is not HTTP.
                # A new pod refuses connections until it listens: that costs no time and ends soon.
                pod.silences = 0 if _is_refused(error) else pod.silences + 1
                pause = backoff(pod.silences + 1, base=self._interval, limit=LONGEST_PAUSE_SECONDS)
                pod.due = asyncio.get_running_loop().time() + pause


def _is_refused(error: BaseException) -> bool:
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError)


async def _page(content: aiohttp.StreamReader) -> bytes:
    """Return the page, or its first MOST_BYTES; one read may return only a part."""
    page = bytearray()
    while len(page) < MOST_BYTES and (part := await content.read(MOST_BYTES - len(page))):
        page += part
    return bytes(page)


def read_shard(text: str) -> Shard | None:
    """Read the shard's progress from a page of metrics; None if it has none."""
    values: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in (METRIC_SHARD_SAMPLES, METRIC_SHARD_DONE):
            try:
                values[name] = float(value)
            except ValueError:
                return None
    if len(values) < 2 or not all(0 <= value <= MOST_SAMPLES for value in values.values()):
        return None
    return Shard(total=int(values[METRIC_SHARD_SAMPLES]), done=int(values[METRIC_SHARD_DONE]))
