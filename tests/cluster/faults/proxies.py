"""Proxies that pass requests on or do not: one before the API server, one before MinIO. Each runs in its own thread, so
that a test continues beside it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from ssl import SSLContext
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

T = TypeVar("T")

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "trailer", "upgrade"}


class CutError(Exception):
    """The connection is to be cut, without an answer or in the middle of one."""


class Proxy:
    """A proxy that passes everything on; subclasses change that."""

    def __init__(self, target: str, ssl: SSLContext | None = None) -> None:
        self._target, self._ssl = target, ssl
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._site: web.TCPSite | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._open())
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """The URL at which it listens."""
        return f"http://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Accept connections, at the same port as before."""
        if self._site is None:
            self._do(self._listen())

    def refuse(self) -> None:
        """Refuse connections, as if no program listened."""
        if self._site is not None:
            self._do(self._site.stop())
        self._site = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request; here, pass it on."""
        return await self.passed_on(request, await request.read())

    async def passed_on(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """Return the answer of the server behind."""
        headers = CIMultiDict({k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP})
        url = self._target + request.raw_path
        skip = ["User-Agent", "Accept-Encoding"]
        async with self._session.request(
            request.method,
            _verbatim(url),
            headers=headers,
            data=body or None,
            skip_auto_headers=skip,
            ssl=self._ssl or True,
        ) as there:
            kept = {k: v for k, v in there.headers.items() if k.lower() not in _HOP_BY_HOP}
            if request.method == "HEAD":
                return web.Response(
                    status=there.status, headers={**kept, "Content-Length": there.headers["Content-Length"]}
                )
            here = web.StreamResponse(status=there.status, headers=kept)
            await here.prepare(request)
            async for chunk in self.stream(request, there):
                await here.write(chunk)
            await here.write_eof()
            return here

    async def stream(self, request: web.Request, there: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield an answer's body as it comes."""
        async for chunk in there.content.iter_any():
            yield chunk

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self.answer(request)
        except (CutError, aiohttp.ClientError):
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPInternalServerError from None

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        self._session = aiohttp.ClientSession(auto_decompress=False, timeout=timeout)
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
        await self._runner.setup()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._session.close()


def _verbatim(url: str) -> Any:
    from yarl import URL

    return URL(url, encoded=True)  # unchanged, because it is signed
