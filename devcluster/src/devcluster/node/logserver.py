"""Serves `kubectl logs`, one part of the kubelet's API.

The API server connects to the port that the Node names. By default it does not check a kubelet's certificate, so this
server uses the API server's own certificate and key.
"""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from devcluster.node.pods import HOST_ADDRESS

_FOLLOW_POLL_S = 0.2
_CHUNK = 1 << 16


class LogServer:
    """Serves containers' logs."""

    def __init__(self, pods_directory: Path, is_running: Callable[[str, str], bool]) -> None:
        self._pods_directory = pods_directory
        self._is_running = is_running

    async def start(self, certificate: Path, key: Path) -> int:
        """Listen on a free port and return it."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, HOST_ADDRESS, 0, ssl_context=context)
        await site.start()
        port: int = runner.addresses[0][1]
        return port

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        namespace, pod = request.match_info["namespace"], request.match_info["pod"]
        log = newest_log(self._pods_directory, namespace, pod, request.match_info["container"])
        if log is None:
            return web.Response(status=404, text="the container has not written anything yet\n")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        with log.open("rb") as file:
            tail = request.query.get("tailLines")
            if tail is not None:
                file.seek(_tail_offset(log, int(tail)))
            while True:
                # Checked before the read: otherwise text that is written between the two would be lost.
                over = request.query.get("follow") != "true" or not self._is_running(namespace, pod)
                while chunk := file.read(_CHUNK):
                    await response.write(chunk)
                if over:
                    break
                await asyncio.sleep(_FOLLOW_POLL_S)
        return response


def newest_log(pods_directory: Path, namespace: str, pod: str, container: str) -> Path | None:
    """Return the log of a container in the latest pod of that name; None if there is none."""
    logs = list(pods_directory.glob(f"{namespace}_{pod}_*/{container}.log"))
    return max(logs, key=lambda path: path.stat().st_mtime) if logs else None


def _tail_offset(log: Path, lines: int) -> int:
    text = log.read_bytes()
    return len(text) - len(b"".join(text.splitlines(keepends=True)[-lines:])) if lines else len(text)
