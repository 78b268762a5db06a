"""The connection to the API server: one pool for kopf's watches and our own requests.

A request carries the present credential, which is renewed before it expires. A 401 to any request causes a new login:
the credentials are read again, the pool is opened again, and every watch is ended, so that it begins again with the new
login. Requests that are running at that moment finish on the former pool. Every request is counted by verb and code.

kopf asks for a session in its login handler, and again when its session is closed. It gets one of its own over the
shared pool, because it closes its session when it stops, while our last requests are still running.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache

import aiohttp
import kopf

from diffugen_operator import __version__
from diffugen_operator.kube.backoff import backoff
from diffugen_operator.kube.credentials import Credential, ServiceAccount, obtain, service_account_of
from diffugen_operator.kube.kubeconfig import Access, LoginError, find_access
from diffugen_operator.settings import Settings

logger = logging.getLogger(__name__)

TRANSPORT_ERRORS = (aiohttp.ClientError, TimeoutError, OSError)
"""The exceptions of a request that gets no answer."""


class LostConnectionError(aiohttp.ClientConnectionError):
    """The file descriptor of a connection was closed without the event loop."""


async def lost_connections(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Raise `LostConnectionError` in place of RuntimeError, as a middleware of a session.

    When an attempt to connect is canceled, the file descriptor of another connection may be closed
    (https://github.com/MagicStack/uvloop/issues/653). uvloop raises RuntimeError for new connections that get this
    descriptor, until the former connection is closed, too.
    """
    try:
        return await handler(request)
    except RuntimeError as error:
        raise LostConnectionError(str(error)) from error


class WatchEndedError(Exception):
    """A watch was ended on purpose (`Connection.end_watches`); it begins again at once."""


UNAUTHORIZED = 401
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_CLOCK_SECONDS = 2.0
"""The precision with which clocks are compared: answers have whole seconds, and need some time to arrive."""
_QUIET_SECONDS = 300.0
"""Logins with this much time between them do not count as a series of failures."""


class Connection:
    """Opens the session, and opens it again when the credentials are refused or renewed."""

    def __init__(
        self,
        settings: Settings,
        count: Callable[[str, str], None],
        *,
        instance: str = "",
        count_restart: Callable[[str, str], None] = lambda resource, reason: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`instance` identifies this process in the API server's audit log; `count_restart`: of kopf's watches."""
        self._agent = f"diffugen-operator/{__version__} {instance}".rstrip()
        self._settings, self._count, self._count_restart, self._now = settings, count, count_restart, now
        self._access: Access | None = None
        self._credential = Credential()
        self._session: aiohttp.ClientSession | None = None
        self._lent: aiohttp.ClientSession | None = None
        self._retired: dict[aiohttp.ClientSession, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self._ahead = timedelta(0)
        self._failures, self._tried_at, self._lent_at = 0, float("-inf"), float("-inf")
        self._watches: set[aiohttp.ClientResponse] = set()
        self._ended: set[aiohttp.ClientResponse] = set()
        self._former: dict[str, aiohttp.ClientResponse | None] = {}

    async def session(self) -> aiohttp.ClientSession:
        """Return the present session. Raises LoginError if there never were usable credentials."""
        if self._session is None:
            async with self._lock:
                if self._session is None:
                    self._access = find_access(self._settings.kubeconfig, self._settings.context)
                    self._credential = await obtain(self._access, self._now)
                    self._session = self._open(self._access)
                    context = f", context {self._access.context}" if self._access.context else ""
                    logger.info("The API server is %s (%s%s).", self._access.server, self._access.source, context)
        return self._session

    @property
    def server(self) -> str:
        """The API server's URL, once there is a session."""
        return self._access.server if self._access is not None else ""

    def service_account(self) -> ServiceAccount | None:
        """Return the service account of the present session, if it has one."""
        return service_account_of(self._credential)

    async def lend(self) -> kopf.AiohttpSession:
        """Give kopf a session; it asks again when its session was closed or refused."""
        again = self._lent_at + _SHORTEST_PAUSE - time.monotonic()
        if again > 0:  # Each 401 makes kopf ask at once.
            await asyncio.sleep(max(again, self._pause()))
        session = await self.session()
        if self._lent is not None:
            await self._lent.close()
        self._lent = self._session_over(session.connector, owner=False, lent=True)
        self._lent_at = time.monotonic()
        return kopf.AiohttpSession(server=self.server, aiohttp_session=self._lent)

    def server_time(self) -> datetime:
        """Return the time by the API server's clock, which wrote the times of all objects."""
        return self._now() + self._ahead

    def end_watches(self) -> None:
        """End every watch; its caller begins it again."""
        for watch in self._watches:
            if not watch.closed:
                self._ended.add(watch)
                watch.close()
        self._watches.clear()

    def was_ended(self, watch: aiohttp.ClientResponse) -> bool:
        """Whether `end_watches` ended this watch; asked once for each."""
        ended = watch in self._ended
        self._ended.discard(watch)
        return ended

    async def close(self) -> None:
        """Close all pools and all sessions over them."""
        for session, timer in self._retired.items():
            timer.cancel()
            await session.close()
        self._retired.clear()
        for present in (self._lent, self._session):
            if present is not None:
                await present.close()

    def _open(self, access: Access) -> aiohttp.ClientSession:
        tls = kopf.ConnectionInfo(
            server=access.server,
            ca_path=None if access.ca else access.ca_file or None,
            ca_data=access.ca or None,
            insecure=access.insecure,
            certificate_data=self._credential.certificate or None,
            private_key_data=self._credential.key or None,
        ).as_ssl_context()
        return self._session_over(aiohttp.TCPConnector(limit=0, ssl=tls), owner=True)

    def _session_over(
        self, pool: aiohttp.BaseConnector | None, *, owner: bool, lent: bool = False
    ) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=pool,
            connector_owner=owner,
            headers={"User-Agent": self._agent},
            proxy=(self._access.proxy or None) if self._access is not None else None,
            middlewares=(*((self._observed,) if lent else ()), self._authorized, self._counted, self._without_lost),
        )

    async def _authorized(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Give the request the present credential; a 401 causes a new login."""
        due = self._credential.renew_at
        if due is not None and self._now() >= due:
            await self._renew(self._credential)
        used = self._credential
        if used.authorization:
            request.headers["Authorization"] = used.authorization
        if self._access is not None and self._access.tls_server_name:
            request.server_hostname = self._access.tls_server_name
        response = await handler(request)
        if response.status == UNAUTHORIZED:
            await self._renew(used, refused=True)
        return response

    async def _renew(self, former: Credential, *, refused: bool = False) -> None:
        """Get another credential in place of `former`; if that fails, the former one stays in use."""
        async with self._lock:
            if self._credential is not former or self._access is None:  # Another request was faster.
                return
            if time.monotonic() < self._tried_at + self._pause():
                return
            quiet = time.monotonic() - self._tried_at > _QUIET_SECONDS
            self._failures, self._tried_at = 0 if quiet else self._failures, time.monotonic()
            try:
                access = self._same(find_access(self._settings.kubeconfig, self._access.context))
                credential = await obtain(access, self._now)
            except LoginError as error:
                self._failures += 1
                logger.warning("No new login: %s. The former one stays in use.", error)
                return
            if refused or credential.identity != former.identity:
                self._failures += 1
                logger.info("Logging in again%s.", ": the API server refused the credentials" if refused else "")
                self._credential, self._access = credential, access
                await self._replace(access)
            else:
                self._credential, self._failures = credential, 0

    def _same(self, access: Access) -> Access:
        """Return the access if it is for the same API server as the present one."""
        if self._access is not None and access.server != self._access.server:
            raise LoginError(
                f"{access.source} now leads to {access.server} instead of {self._access.server}: restart the operator "
                "if that is meant"
            )
        return access

    def _pause(self) -> float:
        return backoff(self._failures, base=_SHORTEST_PAUSE, limit=_LONGEST_PAUSE) if self._failures else 0.0

    async def _replace(self, access: Access) -> None:
        """Open another pool. The former one is closed once its requests have ended; watches end now."""
        former, self._session = self._session, self._open(access)
        if self._lent is not None:
            await self._lent.close()  # kopf asks for another one before its next request.
        self.end_watches()
        if former is not None:
            loop = asyncio.get_running_loop()
            after = 2 * self._settings.request_timeout
            self._retired[former] = loop.call_later(after, self._close_retired, former)

    def _close_retired(self, session: aiohttp.ClientSession) -> None:
        self._retired.pop(session, None)
        task = asyncio.get_running_loop().create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _counted(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        verb, sent = "WATCH" if _is_watch(request) else request.method, time.monotonic()
        try:
            response = await handler(request)
        except (aiohttp.ClientError, OSError, asyncio.CancelledError):
            # aiohttp cancels a request that timed out; its caller sees the timeout.
            self._count(verb, "error")
            raise
        self._count(verb, str(response.status))
        if time.monotonic() - sent < _CLOCK_SECONDS:
            self._compare_clocks(response.headers.get("Date", ""))
        if verb == "WATCH":
            self._watches = {watch for watch in self._watches if not watch.closed}
            self._watches.add(response)
        return response

    async def _without_lost(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """End all watches if a connection was lost: one of them may have it, and would keep it for minutes."""
        try:
            return await lost_connections(request, handler)
        except LostConnectionError as error:
            logger.warning("A connection was lost: %s. All watches begin again.", error)
            self.end_watches()
            raise

    def _compare_clocks(self, date: str) -> None:
        """Note how far the API server's clock is ahead, from the time of its answer (in whole seconds)."""
        try:
            ahead = _time_of(date) + timedelta(seconds=0.5) - self._now()
        except (ValueError, TypeError, OverflowError):
            return
        if abs(ahead - self._ahead) > timedelta(seconds=_CLOCK_SECONDS):
            self._ahead = ahead if abs(ahead) > timedelta(seconds=_CLOCK_SECONDS) else timedelta(0)
            level = logging.WARNING if self._ahead else logging.INFO
            logger.log(level, "The API server's clock is %.0f s ahead of this machine's.", self._ahead.total_seconds())

    async def _observed(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Count the restarts of kopf's watches, by the way in which the former watch ended."""
        if not _is_watch(request):
            return await handler(request)
        path = request.url.path
        if path in self._former:
            self._count_restart(path.rpartition("/")[-1], self._why_ended(self._former[path]))
        self._former[path] = None
        response = self._former[path] = await handler(request)
        return response

    def _why_ended(self, watch: aiohttp.ClientResponse | None) -> str:
        if watch is None:
            return "unreachable"
        if watch.status >= 400:
            return reason_of(watch.status)
        if self.was_ended(watch):
            return "login"
        return "ended" if watch.content.is_eof() else "interrupted"


def reason_of(code: int) -> str:
    """Return the reason of a watch's restart for the status code that it was refused with."""
    return {401: "unauthorized", 404: "missing", 410: "gone"}.get(code, "refused")


@lru_cache(maxsize=2)
def _time_of(date: str) -> datetime:
    """Return the time of a header `Date`, which many answers of the same second share. Raises `ValueError`."""
    return parsedate_to_datetime(date)


def _is_watch(request: aiohttp.ClientRequest) -> bool:
    return request.url.query.get("watch") == "true"
