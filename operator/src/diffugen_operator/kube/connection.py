"""The connection to the API server: one pool for kopf's watches and our own requests.

kopf asks for it in its login handler, and again after a 401. It gets a session of its own over the shared pool, because
it closes its session when it stops, while our last requests are still running. A service account's token is read again
regularly, because the kubelet renews it. Every request is counted by verb and code.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import kopf

from diffugen_operator import __version__
from diffugen_operator.settings import Settings

logger = logging.getLogger(__name__)

TRANSPORT_ERRORS = (aiohttp.ClientError, TimeoutError, OSError)
"""What a request raises that gets no answer."""

TOKEN_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_TOKEN_SECONDS = 60.0


class Connection:
    """Opens the session, and opens it again when the credentials are refused."""

    def __init__(self, settings: Settings, count: Callable[[str, str], None], *, instance: str = "") -> None:
        """`instance` identifies this process in the API server's audit log."""
        self._agent = f"diffugen-operator/{__version__} {instance}".rstrip()
        self._settings = settings
        self._count = count
        self._session: aiohttp.ClientSession | None = None
        self._lent: aiohttp.ClientSession | None = None
        self._server = ""
        self._headers: dict[str, str] = {}
        self._proxy: str | None = None
        self._in_pod = False
        self._token: tuple[float, str] | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The present session."""
        if self._session is None or self._session.closed:
            self._session = self._open()
        return self._session

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._server

    async def lend(self) -> kopf.AiohttpSession:
        """Give kopf a session; if it asks again, its credentials were refused, and the pool is opened again."""
        if self._lent is not None:
            await self.close()
        self._lent = self._session_over(self.session.connector, owner=False)
        return kopf.AiohttpSession(server=self._server, aiohttp_session=self._lent)

    def _open(self) -> aiohttp.ClientSession:
        info = self._credentials()
        self._server = info.server.rstrip("/")
        self._headers = {"User-Agent": self._agent, **info.as_http_headers()}
        self._proxy = info.proxy_url
        self._in_pod = info.token is not None and not os.environ.get("KUBECONFIG") and TOKEN_FILE.exists()
        return self._session_over(aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()), owner=True)

    def _session_over(self, pool: aiohttp.BaseConnector | None, *, owner: bool) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=pool,
            connector_owner=owner,
            headers=self._headers,
            proxy=self._proxy,
            middlewares=(self._fresh_token, self._counted) if self._in_pod else (self._counted,),
        )

    async def close(self) -> None:
        """Close the pool and all sessions over it."""
        for session in (self._lent, self._session):
            if session is not None:
                await session.close()

    def _credentials(self) -> kopf.ConnectionInfo:
        settings = kopf.OperatorSettings()
        if self._settings.kubeconfig:
            if not Path(self._settings.kubeconfig).expanduser().is_file():
                raise kopf.LoginError(f"there is no kubeconfig {self._settings.kubeconfig}")
            os.environ["KUBECONFIG"] = self._settings.kubeconfig
        if not os.environ.get("KUBECONFIG"):
            info = kopf.login_with_service_account(settings=settings)
            if info is not None:
                return info
        info = kopf.login_with_kubeconfig(settings=settings)
        if info is None:
            raise kopf.LoginError("there is no service account and no kubeconfig: set --kubeconfig or KUBECONFIG")
        if info.token is None and info.certificate_path is None and info.certificate_data is None:
            # The official client handles programs and cloud providers that issue tokens.
            return kopf.login_via_client(settings=settings, logger=logger) or info
        return info

    async def _fresh_token(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        now = time.monotonic()
        if self._token is None or now - self._token[0] > _TOKEN_SECONDS:
            self._token = (now, await asyncio.to_thread(TOKEN_FILE.read_text))
        request.headers["Authorization"] = f"Bearer {self._token[1].strip()}"
        return await handler(request)

    async def _counted(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        verb = "WATCH" if request.url.query.get("watch") == "true" else request.method
        try:
            response = await handler(request)
        except (aiohttp.ClientError, OSError, asyncio.CancelledError):
            # aiohttp cancels a request that timed out; its caller sees the timeout.
            self._count(verb, "error")
            raise
        self._count(verb, str(response.status))
        return response
