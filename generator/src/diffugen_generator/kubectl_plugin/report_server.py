"""Serves a published dataset to a browser on this machine, because its report consists of many files.

A signed address opens one object. The report loads others beside it, so here a server on 127.0.0.1 reads them from the
store with the user's keys. Its addresses begin with a random word: other users of the machine, and other pages in the
browser, do not know it. It only reads, and only below the dataset's root.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from minio import Minio
from minio.error import S3Error
from urllib3.exceptions import HTTPError

_PIECE = 1 << 16
_GONE = ("NoSuchKey", "NoSuchBucket")


@dataclass(frozen=True, slots=True)
class Served:
    """What is served."""

    client: Minio
    bucket: str
    root: str
    """Key of the dataset's root, without slashes at its ends."""


@contextmanager
def serving(served: Served) -> Iterator[str]:
    """Serve while the context lasts; yields the address of the dataset's root, with its closing slash."""
    word = secrets.token_urlsafe(18)
    handler = type("Handler", (_Handler,), {"served": served, "word": word})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{word}/"
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET with objects of the dataset."""

    served: Served
    word: str

    def do_GET(self) -> None:
        """Send an object."""
        key = self._key()
        if key is None:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such file.")
            return
        response: Any = None
        try:
            response = self.served.client.get_object(self.served.bucket, key)
            self._send(response)
        except S3Error as error:
            gone = error.code in _GONE
            self._refuse(HTTPStatus.NOT_FOUND if gone else HTTPStatus.BAD_GATEWAY, f"{key}: {error.message}")
        except HTTPError as error:
            self._refuse(HTTPStatus.BAD_GATEWAY, f"The store does not answer: {error}")
        except ConnectionError:
            self.close_connection = True  # the browser has gone on to something else
        finally:
            if response is not None:
                response.close()
                response.release_conn()

    def _key(self) -> str | None:
        """Return the key that the request names; None for any address that was not handed out."""
        _, word, *parts = [unquote(part) for part in urlsplit(self.path).path.split("/")]
        if not secrets.compare_digest(word.encode(), self.word.encode()) or not parts:
            return None
        if any(part in ("", ".", "..") or "/" in part for part in parts):
            return None
        return "/".join(filter(None, (self.served.root, *parts)))

    def _send(self, response: Any) -> None:
        self.send_response(HTTPStatus.OK)
        for name in ("Content-Type", "Content-Length"):
            if value := response.headers.get(name):
                self.send_header(name, value)
        self._send_safety()
        self.end_headers()
        for piece in response.stream(_PIECE):
            self.wfile.write(piece)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        body = f"{why}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self._send_safety()
        self.end_headers()
        self.wfile.write(body)

    def _send_safety(self) -> None:
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")

    def log_message(self, *_: object) -> None:
        """Log nothing: the page loads hundreds of files."""
