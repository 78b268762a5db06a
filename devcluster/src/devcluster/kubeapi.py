"""A small client of the Kubernetes API: JSON in, JSON out.

The node agent starts several times in a test run and reads few fields of few kinds. So it does not load a generated
client, which takes time to import and turns every watch event into model objects.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import yaml

JsonObject: TypeAlias = dict[str, Any]
"""A Kubernetes object as the API sends it."""

STRATEGIC_MERGE = "application/strategic-merge-patch+json"
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5)
_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)


class ApiError(RuntimeError):
    """The API server answered with an error; `message` is the server's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


UNREACHABLE = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
"""The exceptions of a call if there is no answer."""


class KubeApi:
    """One user's access to one API server."""

    def __init__(self, *, server: str, token: str, certificate_authority: Path) -> None:
        self._server = server
        context = ssl.create_default_context(cafile=str(certificate_authority))
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"},
            connector=aiohttp.TCPConnector(ssl=context, limit=64),
            timeout=_REQUEST_TIMEOUT,
        )

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Self:
        """Connect as the kubeconfig's only user to its only cluster."""
        config = yaml.safe_load(path.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        return cls(
            server=cluster["server"],
            token=user["token"],
            certificate_authority=Path(cluster["certificate-authority"]),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the server."""
        parts = urlsplit(self._server)
        return parts.hostname or "", parts.port or 443

    async def get(self, path: str, **params: str) -> JsonObject:
        """Read one object or list."""
        return await self._request("GET", path, params=params)

    async def text(self, path: str) -> str:
        """Read something that is not JSON, such as /readyz."""
        async with self._session.get(self._server + path) as response:
            body = await response.text()
            if response.status >= 400:
                raise ApiError(response.status, body)
            return body

    async def create(self, path: str, body: JsonObject) -> JsonObject:
        """POST a new object."""
        return await self._request("POST", path, body=body)

    async def replace(self, path: str, body: JsonObject) -> JsonObject:
        """PUT an object to replace the one that was read."""
        return await self._request("PUT", path, body=body)

    async def patch(self, path: str, body: JsonObject, *, content_type: str = STRATEGIC_MERGE) -> JsonObject:
        """Change some fields."""
        return await self._request("PATCH", path, body=body, content_type=content_type)

    async def delete(self, path: str, body: JsonObject | None = None) -> JsonObject:
        """Delete an object; `body` may hold DeleteOptions."""
        return await self._request("DELETE", path, body=body)

    async def watch(self, path: str, **params: str) -> AsyncIterator[tuple[str, JsonObject]]:
        """Yield event type and object until the server ends the stream."""
        query = {**params, "watch": "true", "allowWatchBookmarks": "true"}
        async with self._session.get(self._server + path, params=query, timeout=_NO_TIMEOUT) as response:
            if response.status >= 400:
                raise await _error_of(response)
            unread = b""
            # Not line by line: aiohttp limits the length of a line, and an object may be longer.
            async for chunk in response.content.iter_any():
                *lines, unread = (unread + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    yield event["type"], event["object"]

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: JsonObject | None = None,
        content_type: str = "application/json",
    ) -> JsonObject:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if data else {}
        async with self._session.request(
            method, self._server + path, params=params, data=data, headers=headers
        ) as response:
            if response.status >= 400:
                raise await _error_of(response)
            answer: JsonObject = await response.json()
            return answer


async def _error_of(response: aiohttp.ClientResponse) -> ApiError:
    text = await response.text()
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text
    return ApiError(response.status, message)
