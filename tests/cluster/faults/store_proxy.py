"""Proxies before MinIO: one behaves like a store with a given fault, and one makes workers wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import Enum

from aiohttp import web

from tests.cluster.faults.proxies import CutError, Proxy


class Mood(Enum):
    """The state of the store."""

    WELL = "well"
    SLOW = "slow"
    ILL = "ill"
    FORBIDDING = "forbidding"
    SHORT = "cutting uploads short"
    STOPPED = "stopped"


_ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>{message}</Message><Resource>/</Resource><RequestId>1</RequestId></Error>"""


class StoreProxy(Proxy):
    """A store that can be put into a mood, that is, a kind of fault.

    `before_publish`: the mood that it takes by itself when all of the stage's shards have written their reports, so
    that the publish step meets it from its first request on.
    """

    def __init__(self, target: str, *, shards: int) -> None:
        super().__init__(target)
        self.mood, self.before_publish = Mood.WELL, Mood.WELL
        self._awaited, self._fallen = shards, False
        self.troubled = 0
        """How many requests have had a fault in this mood."""
        self.spells: list[tuple[str, int]] = []

    def fall(self, mood: Mood) -> None:
        """Take this mood from now on."""
        if mood is not self.mood and self.mood is not Mood.WELL:
            self.spells.append((self.mood.value, self.troubled))
        if mood is not self.mood:
            self.mood, self.troubled = mood, 0
        if mood is Mood.STOPPED:
            self.refuse()
        else:
            self.listen()
        self._fall_before_publish()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer the request in the current mood."""
        if self.mood is Mood.WELL:
            answer = await self.passed_on(request, await request.read())
        else:
            answer = await self._troubled(request)
        if request.method == "PUT" and "/shards/" in request.path and answer.status == 200:
            self._awaited -= 1
            self._fall_before_publish()
        return answer

    def _fall_before_publish(self) -> None:
        """Take that mood once all shards have reported and the store works again; some report while it is slow."""
        falls = self.mood is Mood.WELL and self.before_publish is not Mood.WELL
        if falls and self._awaited <= 0 and not self._fallen:
            self._fallen = True
            self.mood, self.troubled = self.before_publish, 0

    async def _troubled(self, request: web.Request) -> web.StreamResponse:
        if self.mood is not Mood.SHORT:
            self.troubled += 1
        match self.mood:
            case Mood.SLOW:
                await asyncio.sleep(0.7)
            case Mood.ILL:
                return _refusal(503, "SlowDown", "Please reduce your request rate.")
            case Mood.FORBIDDING:
                return _refusal(403, "AccessDenied", "Access Denied.")
            case Mood.STOPPED:  # a connection that was open before
                raise CutError
            case Mood.SHORT if request.method == "PUT":
                self.troubled += 1
                await request.content.read(max(1, (request.content_length or 2) // 2))
                raise CutError
        return await self.passed_on(request, await request.read())


class HoldingStore(Proxy):
    """A store that leaves chosen requests unanswered until they are released: the client waits at a known point.

    A request is identified by its method and the end of its key: "GET 00000.jsonl.gz".
    """

    def __init__(self, target: str, *, held: Iterable[str]) -> None:
        super().__init__(target)
        self._gates = {request: asyncio.Event() for request in held}
        self.asked: set[str] = set()
        """The held requests that have arrived."""

    def let_go(self, request: str) -> None:
        """Answer this request and all equal ones from now on."""
        self._loop.call_soon_threadsafe(self._gates[request].set)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Pass the request on when it is released."""
        name = f"{request.method} {request.path.rsplit('/', 1)[-1]}"
        if name in self._gates:
            self.asked.add(name)
            await self._gates[name].wait()
        return await super().answer(request)


def _refusal(status: int, code: str, message: str) -> web.Response:
    return web.Response(status=status, text=_ERROR.format(code=code, message=message), content_type="application/xml")
