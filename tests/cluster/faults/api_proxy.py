"""A proxy before the API server that answers as an API server in trouble does, at random, from a seed."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from tests.cluster.faults.proxies import CutError, Proxy

RETRY_AFTER = 2

REQUEST_FAULTS = ("busy", "broken", "cut before", "cut after", "late", "silent")
WRITE_FAULTS = (*REQUEST_FAULTS, "conflict")
WATCH_FAULTS = ("dropped", "frozen", "late", "gone", "busy", "broken")


class ApiProxy(Proxy):
    """Every request draws its fortune from the seed; `met` counts what befell them."""

    def __init__(self, kubeconfig: Path, *, seed: object, odds: float) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        self._config = config
        cluster = config["clusters"][0]["cluster"]
        super().__init__(cluster["server"], ssl.create_default_context(cafile=cluster["certificate-authority"]))
        self._random, self._odds = random.Random(str(seed)), odds
        self.met: Counter[str] = Counter()
        self.impatient: list[str] = []
        """Writes that came again before their Retry-After was over."""
        self._not_before: dict[str, float] = {}

    def kubeconfig(self, path: Path) -> Path:
        """Write one that leads here."""
        config = {**self._config, "clusters": [{**self._config["clusters"][0], "cluster": {"server": self.url}}]}
        path.write_text(yaml.safe_dump(config))
        return path

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Pass it on, or meet it with what it has drawn."""
        body = await request.read()
        watch = request.query.get("watch") == "true"
        write = request.method != "GET"
        which = f"{request.method} {request.path}"
        if write and time.monotonic() < self._not_before.get(which, 0) - 0.1:
            self.impatient.append(which)
        faults = WATCH_FAULTS if watch else WRITE_FAULTS if write else REQUEST_FAULTS
        fault = self._random.choice(faults) if self._random.random() < self._odds else ""
        if write and which not in self._not_before:  # each write meets this at least once
            fault = "busy"
        self.met[f"{'watch' if watch else 'write' if write else 'read'}: {fault or 'passed on'}"] += 1
        request["fault"] = fault if watch else ""
        match fault:
            case "busy":
                if write:
                    self._not_before[which] = time.monotonic() + RETRY_AFTER
                return _status(429, "TooManyRequests", retry_after=RETRY_AFTER)
            case "broken":
                return _status(500, "InternalError")
            case "gone":
                return _status(410, "Expired")
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

    async def _passed_on_for_nothing(self, request: web.Request, body: bytes) -> None:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in {"host", "content-length"}}
        url = self._target + request.raw_path
        async with self._session.request(
            request.method, url, headers=headers, data=body, ssl=self._ssl or True
        ) as there:
            await there.read()

    async def stream(self, request: web.Request, there: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield what a watch brings, for as long as it lasts."""
        fault, until = request["fault"], time.monotonic() + self._random.uniform(0.2, 3.0)
        async for chunk in there.content.iter_any():
            if fault == "dropped" and time.monotonic() > until:
                raise CutError
            if fault == "frozen" and time.monotonic() > until:
                await asyncio.sleep(120)
            yield chunk


def _status(code: int, reason: str, *, retry_after: int = 0) -> web.Response:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    body = json.dumps({**status, "message": f"{reason}: of the test's making"})
    return web.Response(status=code, text=body, content_type="application/json", headers=headers)
