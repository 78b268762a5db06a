"""The HTTP endpoints for the kubelet and Prometheus: /livez, /readyz, /metrics.

/livez answers from the operator's own event loop, so it does not answer if the loop hangs; it fails if a reconcile
takes far too long. /readyz succeeds once everything has been listed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable

from aiohttp import web

logger = logging.getLogger(__name__)

Check = Callable[[], str | None]
"""Returns what is wrong, or None."""


class ListenError(Exception):
    """The address cannot be bound."""


class Server:
    """The HTTP server."""

    def __init__(self, *, live: Check, ready: Check, page: Callable[[], bytes]) -> None:
        self._live, self._ready, self._metrics = live, ready, page
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Start to listen; returns the port."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self._answer(self._live)),
                web.get("/readyz", self._answer(self._ready)),
                web.get("/metrics", self._page_of_metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            message = f"cannot listen at {host}:{port}: {why}; set --http-host or --http-port to a free one"
            raise ListenError(message) from error
        found: int = self._runner.addresses[0][1]
        logger.info("Probes and metrics at %s:%d.", host, found)
        return found

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _answer(self, check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(_: web.Request) -> web.Response:
            wrong = check()
            return web.Response(text=f"{wrong or 'ok'}\n", status=200 if wrong is None else 503)

        return handler

    async def _page_of_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4"})
