"""Proxies before the API server: one answers like a failing API server, at random from a seed; in another, watches
freeze; a third refuses chosen requests.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from tests.cluster.faults.proxies import CutError, Proxy

RETRY_AFTER = 2
FAULT = web.RequestKey("fault", str)
"""The fault that was drawn for a request."""

FAULTS = {
    "read": ("busy", "broken", "cut before", "cut after", "late", "silent"),
    "write": ("busy", "broken", "cut before", "cut after", "late", "silent", "conflict"),
    "watch": ("dropped", "frozen", "late", "gone", "busy", "broken"),
}
"""The faults that each kind of request can get."""


class ApiFront(Proxy):
    """A proxy with a kubeconfig that points to it."""

    def __init__(self, kubeconfig: Path) -> None:
        self._config = yaml.safe_load(kubeconfig.read_text())
        cluster = self._config["clusters"][0]["cluster"]
        super().__init__(cluster["server"], ssl.create_default_context(cafile=cluster["certificate-authority"]))

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig with this proxy as the server."""
        config = {**self._config, "clusters": [{**self._config["clusters"][0], "cluster": {"server": self.url}}]}
        path.write_text(yaml.safe_dump(config))
        return path


class ApiProxy(ApiFront):
    """First, every fault is applied once, each to the next request of its kind, in an order drawn from the seed. After
    that, each request draws at random. `met` counts the applied faults.
    """

    def __init__(self, kubeconfig: Path, *, seed: object, odds: float) -> None:
        super().__init__(kubeconfig)
        self._random, self._odds = random.Random(str(seed)), odds
        self._due = {kind: self._random.sample(faults, len(faults)) for kind, faults in FAULTS.items()}
        self.met: Counter[tuple[str, str]] = Counter()
        self.impatient: list[str] = []
        """Writes that were sent again before their Retry-After was over."""
        self._not_before: dict[str, float] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Pass the request on, or apply the fault that was drawn."""
        body = await request.read()
        write = request.method != "GET"
        kind = "watch" if _is_watch(request) else "write" if write else "read"
        which = f"{request.method} {request.path}"
        if write and time.monotonic() < self._not_before.get(which, 0) - 0.1:
            self.impatient.append(which)
        fault = self._drawn(kind)
        if write and which not in self._not_before:  # each write gets this at least once
            fault = "busy"
        request[FAULT] = fault
        if fault not in {"dropped", "frozen"}:  # which apply to the events of a watch
            self._befalls(kind, fault)
        match fault:
            case "busy":
                if write:
                    self._not_before[which] = time.monotonic() + RETRY_AFTER
                return _status(429, "TooManyRequests", retry_after=RETRY_AFTER)
            case "broken":
                return _status(500, "InternalError")
            case "gone":
                plain = self._random.random() < 0.5
                return _status(410, "Expired") if plain else _error_event(410, "Expired")
            case "conflict":
                return _status(409, "Conflict")
            case "cut before":
                raise CutError
            case "cut after":
                await self._passed_on_for_nothing(request, body)
                raise CutError
            case "late":
                await asyncio.sleep(self._random.uniform(0.1, 1.0))
            case "silent":
                await asyncio.sleep(60)
        return await self.passed_on(request, body)

    def _drawn(self, kind: str) -> str:
        if self._due[kind]:
            return self._due[kind][0]
        return self._random.choice(FAULTS[kind]) if self._random.random() < self._odds else ""

    def _befalls(self, kind: str, fault: str) -> None:
        self.met[kind, fault] += 1
        if fault in self._due[kind]:
            self._due[kind].remove(fault)

    async def _passed_on_for_nothing(self, request: web.Request, body: bytes) -> None:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in {"host", "content-length"}}
        url = self._target + request.raw_path
        async with self._session.request(
            request.method, url, headers=headers, data=body, ssl=self._ssl or True
        ) as there:
            await there.read()

    async def stream(self, request: web.Request, there: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield the events of a watch until it ends."""
        fault, spared = request[FAULT], self._random.randrange(2)
        async for chunk in there.content.iter_any():
            if fault in {"dropped", "frozen"} and spared == 0:
                self._befalls("watch", fault)
                if fault == "dropped":
                    raise CutError
                await asyncio.Event().wait()  # until the client closes the watch
            spared -= 1
            yield chunk


class FreezingApi(ApiFront):
    """Passes everything on, but a watch can freeze: it stays open and sends no further events."""

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__(kubeconfig)
        self._to_freeze: set[str] = set()
        self.given_up: list[str] = []
        """The resources of frozen watches, each added when the client has closed the watch."""
        self.lists: Counter[str] = Counter()

    def freeze(self, resources: Iterable[str]) -> None:
        """For each of these resources, freeze the watch that has the next event."""
        self._to_freeze = set(resources)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Pass the request on."""
        if request.method == "GET" and not _is_watch(request):
            self.lists[_resource(request)] += 1
        return await super().answer(request)

    async def stream(self, request: web.Request, there: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield the events until this watch freezes."""
        resource = _resource(request)
        async for chunk in there.content.iter_any():
            if _is_watch(request) and resource in self._to_freeze:
                self._to_freeze.remove(resource)
                try:
                    await asyncio.Event().wait()
                finally:
                    self.given_up.append(resource)
            yield chunk


class RefusingApi(ApiFront):
    """Passes everything on, but can refuse the next watch or write of a kind, and cut an open watch."""

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__(kubeconfig)
        self._refusals: dict[str, list[int]] = {}
        self._cuts: dict[str, asyncio.Event] = {}
        self.watches: Counter[str] = Counter()
        """The watches that were passed on, by resource."""
        self.refused: list[tuple[str, int]] = []

    def refuse_watch(self, resource: str, *codes: int) -> None:
        """Refuse the next watches of this kind with these codes, and cut the one that is open."""
        self._loop.call_soon_threadsafe(self._refuse, f"watch {resource}", codes)

    def refuse_write(self, resource: str, *codes: int) -> None:
        """Refuse the next writes to this kind with these codes."""
        self._loop.call_soon_threadsafe(self._refuse, f"write {resource}", codes)

    def _refuse(self, what: str, codes: tuple[int, ...]) -> None:
        self._refusals[what] = list(codes)
        if (cut := self._cuts.pop(what.partition(" ")[2], None)) is not None and what.startswith("watch"):
            cut.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Pass the request on, or refuse it."""
        resource = _resource(request)
        if resource == "status":
            resource = "labeleddatasets/status"
        what = f"watch {resource}" if _is_watch(request) else f"write {resource}" if request.method != "GET" else ""
        if codes := self._refusals.get(what):
            code = codes.pop(0)
            self.refused.append((what, code))
            return _status(code, {401: "Unauthorized", 404: "NotFound", 410: "Expired"}.get(code, "InternalError"))
        if _is_watch(request):
            self.watches[resource] += 1
        return await super().answer(request)

    async def stream(self, request: web.Request, there: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield the answer; a watch until it is cut."""
        cut = self._cuts.setdefault(_resource(request), asyncio.Event()) if _is_watch(request) else asyncio.Event()
        chunks = there.content.iter_any()
        while True:
            reads = asyncio.ensure_future(anext(chunks, b""))
            cuts = asyncio.ensure_future(cut.wait())
            await asyncio.wait({reads, cuts}, return_when=asyncio.FIRST_COMPLETED)
            cuts.cancel()
            if not reads.done():
                reads.cancel()
                raise CutError
            if not (chunk := reads.result()):
                return
            yield chunk


class ExpiringApi(ApiFront):
    """Refuses every login after a random number of requests, as where tokens expire early: a few answers are 401.

    Of the kinds in `FEW`, one of the first three requests is refused in any case.
    """

    FEW = ("watch", "PATCH", "POST")

    def __init__(self, kubeconfig: Path, *, seed: object) -> None:
        super().__init__(kubeconfig)
        self._random = random.Random(str(seed))
        self._left = self._random.randint(5, 25)
        self._due = {kind: self._random.randint(1, 3) for kind in self.FEW}
        self.refused: Counter[str] = Counter()
        """The requests that were refused, by their kind: watch, or the method."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Pass the request on, or refuse it."""
        kind = "watch" if _is_watch(request) else request.method
        self._left -= 1
        self._due[kind] = self._due.get(kind, 0) - 1
        if self._left < 0 or self._due[kind] == 0:
            if self._left <= -self._random.randint(1, 4):
                self._left = self._random.randint(5, 25)
            self.refused[kind] += 1
            return _status(401, "Unauthorized")
        return await super().answer(request)


def _is_watch(request: web.Request) -> bool:
    return request.query.get("watch") == "true"


def _resource(request: web.Request) -> str:
    return request.path.rpartition("/")[-1]


def _status(code: int, reason: str, *, retry_after: int = 0) -> web.Response:
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    body = json.dumps(_failure(code, reason))
    return web.Response(status=code, text=body, content_type="application/json", headers=headers)


def _error_event(code: int, reason: str) -> web.Response:
    event = {"type": "ERROR", "object": _failure(code, reason)}
    return web.Response(text=json.dumps(event) + "\n", content_type="application/json")


def _failure(code: int, reason: str) -> dict[str, object]:
    message = f"{reason}: of the test's making"
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "code": code,
        "message": message,
    }
