"""`diffugen view`: serves a published revision on this machine, so that a browser can show it without credentials.

Only the files of the revision are served, read-only, on 127.0.0.1. Addresses begin with a random word, which other
users of the machine and other pages in the browser do not know. The first page is the report if the revision has one,
else a page with the contact sheet, the counts and the dataset card.
"""

from __future__ import annotations

import html
import mimetypes
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

from diffugen_generator.failures import Failure, Missing
from diffugen_generator.publishing.reading import PublishedDataset

REPORT = "report.html"

_POLICY = "default-src 'self' 'unsafe-inline' data: blob:; object-src 'none'; base-uri 'none'"
"""The Content-Security-Policy of every answer: a page loads only from this server. A page may set a stricter one."""


@contextmanager
def serving(published: PublishedDataset, port: int = 0) -> Iterator[str]:
    """Serve a revision while the block runs; yield the address of the first page. `port` 0 is any free one."""
    word = secrets.token_urlsafe(18)
    handler = type("Handler", (_Handler,), {"published": published, "word": word})
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            first = REPORT if published.store.exists(published.folder + REPORT) else ""
            yield f"http://127.0.0.1:{server.server_port}/{word}/{first}"
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD with files of the revision."""

    published: PublishedDataset
    word: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send a file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send only the head of the answer."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        word, _, path = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        if not secrets.compare_digest(word.encode(), self.word.encode()):
            self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"There is no such address.\n", body=body)
            return
        if not path:
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", _overview(self.published), body=body)
            return
        try:
            data = self.published.store.read(self.published.folder + path)
        except (Missing, ValueError):  # ValueError: not a key
            self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"There is no such file.\n", body=body)
            return
        except Failure as failure:
            self._send(HTTPStatus.BAD_GATEWAY, "text/plain; charset=utf-8", f"{failure}\n".encode(), body=body)
            return
        kind, encoding = mimetypes.guess_type(path)
        if encoding:  # the file is sent as it is
            kind = "application/octet-stream"
        if path.endswith(".md"):
            kind = "text/plain"
        if kind and kind.startswith("text/"):
            kind += "; charset=utf-8"
        self._send(HTTPStatus.OK, kind or "application/octet-stream", data, body=body)

    def _send(self, status: HTTPStatus, kind: str, data: bytes, *, body: bool) -> None:
        length, first = len(data), 0
        asked = self.headers.get("Range", "")
        if status is HTTPStatus.OK and (found := _range_of(asked, length)):
            first, last = found
            status, data = HTTPStatus.PARTIAL_CONTENT, data[first : last + 1]
        self.send_response(status)
        if status is HTTPStatus.PARTIAL_CONTENT:
            self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{length}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Write no log."""


def _range_of(asked: str, length: int) -> tuple[int, int] | None:
    """Return the first and the last byte that a Range header asks for; None if it is not a single valid range."""
    unit, _, span = asked.partition("=")
    first, dash, last = span.partition("-")
    if unit != "bytes" or not dash or not (first.isdecimal() or not first) or not (last.isdecimal() or not last):
        return None
    if not first:
        return (max(0, length - int(last)), length - 1) if last and int(last) else None
    start, end = int(first), min(int(last), length - 1) if last else length - 1
    return (start, end) if start <= end else None


def _overview(published: PublishedDataset) -> bytes:
    dataset = published.dataset
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{sum(splits.values()):,}</td></tr>"
        for name, splits in dataset["classes"].items()
    )
    try:
        card = published.store.read(f"{published.folder}README.md").decode("utf-8", "replace")
    except Missing:
        card = ""
    name = html.escape(str(dataset.get("name", "")))
    without = (
        "The report is not here: pull without --format."
        if "report.html" in dataset.get("files", {})
        else ("This revision has no report.")
    )
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;
padding:0 1rem}}img{{max-width:100%}}th{{text-align:left;padding-right:2rem}}pre{{white-space:pre-wrap}}</style></head>
<body><h1>{name}</h1>
<p>Revision {html.escape(str(dataset["revision"]))}: {dataset["samples"]:,} images, {dataset["instances"]:,} objects,
{dataset["rejected"]:,} rejected. {without}</p>
<img src="contact-sheet.png" alt="Images of the dataset with their labels">
<table><caption>Objects by class</caption>{rows}</table>
<h2>Dataset card</h2><pre>{html.escape(card)}</pre></body></html>
"""
    return page.encode()
