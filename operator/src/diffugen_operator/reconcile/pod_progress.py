"""Asking running pods how far their shards are.

Pods serve Prometheus metrics at their own address; three lines of it are wanted. Pods are asked without any
credentials, side by side, each for a short time. One that does not answer is no error: completed indexes
are the floor of all progress.

Nobody waits for a pod. A look at a dataset takes what its pods said last, and has them asked once more, in the
background, shortly before the next look is due. So silent pods hold up no reconcile. Nor do they hold up other pods
for long: one that has said nothing is asked less and less often, and few of them at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf, isfinite

import aiohttp

from diffugen_api.contract import METRIC_SHARD_DONE, METRIC_SHARD_SAMPLES, METRICS_PORT
from diffugen_operator.kube.backoff import backoff
from diffugen_operator.kube.connection import TRANSPORT_ERRORS
from diffugen_operator.kube.work_queue import Key
from diffugen_operator.observed.pods import Pod
from diffugen_operator.observed.progress import Shard
from diffugen_operator.settings import Settings

MOST_BYTES = 256 * 1024
"""A page of metrics is a few kB; what sends more is not one of our pods."""

LONGEST_PAUSE_SECONDS = 60.0
"""The longest pause until a silent pod is asked again: a network that is mended is noticed soon."""

_BEFORE_THE_LOOK = 0.9
"""The part of the interval after which pods are asked again, so that the next look has what they say."""


@dataclass(slots=True)
class _Asked:
    """A pod that is asked, and what came of it."""

    address: str = ""
    shard: Shard | None = None
    silences: int = 0
    """How often in a row it has said nothing."""
    due: float = -inf


@dataclass(slots=True)
class _Followed:
    """A dataset whose pods are asked."""

    pods: dict[str, _Asked] = field(default_factory=dict)
    due: float = -inf
    round: asyncio.Task[None] | None = None


class Scraper:
    """Asks pods, over one session of its own: the API server's holds our token."""

    def __init__(self, settings: Settings) -> None:
        self._interval = settings.scrape_interval * _BEFORE_THE_LOOK
        self._timeout = aiohttp.ClientTimeout(total=settings.scrape_timeout)
        self._slots = asyncio.Semaphore(settings.scrape_concurrency)
        self._slots_for_silent = max(1, settings.scrape_concurrency // 4)
        self._followed: dict[Key, _Followed] = {}
        self._session: aiohttp.ClientSession | None = None

    def follow(self, key: Key, pods: Iterable[Pod]) -> dict[str, Shard]:
        """Return what these pods of a dataset said last of their shards, by pod, and have them asked once more.

        Pods that are not named any more are forgotten; where none is left, so is the dataset.
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
        """Ask the pods of a dataset no more."""
        followed = self._followed.pop(key, None)
        if followed is not None and followed.round is not None:
            followed.round.cancel()

    async def close(self) -> None:
        """Ask nobody any more, and close the session."""
        rounds = [followed.round for followed in self._followed.values() if followed.round is not None]
        for key in list(self._followed):
            self.forget(key)
        await asyncio.gather(*rounds, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def ask(self, address: str) -> Shard | None:
        """Return what the pod at this address says of its shard; None where it says nothing of one."""
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False)
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{METRICS_PORT}/metrics"
        async with self._session.get(url, timeout=self._timeout, allow_redirects=False) as response:
            if response.status != 200:
                return None
            return read_shard((await _page(response.content)).decode(errors="replace"))

    async def _round(self, followed: _Followed) -> None:
        """Ask a dataset's pods, once it is time."""
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, followed.due - clock()))
        followed.due = clock() + self._interval
        heard = [pod for pod in followed.pods.values() if not pod.silences]
        silent = [pod for pod in followed.pods.values() if pod.silences and pod.due <= clock()]
        # Silent pods do not stand in line for a slot, where others would wait behind them: they wait for another round.
        silent = sorted(silent, key=lambda pod: pod.due)[: self._slots_for_silent]
        self._slots_for_silent -= len(silent)
        try:
            await asyncio.gather(*(self._hear(pod) for pod in [*heard, *silent]))
        finally:
            self._slots_for_silent += len(silent)

    async def _hear(self, pod: _Asked) -> None:
        """Ask a pod; one that does not answer has said what it said before."""
        async with self._slots:
            try:
                pod.shard = await self.ask(pod.address) or pod.shard
                pod.silences = 0
            except TRANSPORT_ERRORS as error:
                # Until a new pod listens, it refuses: that takes no time, and is over soon.
                pod.silences = 0 if _is_refused(error) else pod.silences + 1
                pause = backoff(pod.silences + 1, base=self._interval, limit=LONGEST_PAUSE_SECONDS)
                pod.due = asyncio.get_running_loop().time() + pause


def _is_refused(error: BaseException) -> bool:
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError)


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
