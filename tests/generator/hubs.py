"""A local hub: the part of the Hugging Face hub's HTTP API that its client uses, over local folders.

As on the hub: revisions resolve to commits; the tree has size, git blob id and, for large files, SHA-256; files
are served at a commit with ETag, in ranges; missing, gated and private repositories and files have its error codes.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".ckpt")
_INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>.+))?")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


@dataclass
class Hub:
    """The hub's content, its behavior, and the requests that it got."""

    url: str = ""
    repositories: dict[str, dict[str, Path]] = field(default_factory=dict)
    """Of each repository its commits, the latest last, and their files' folder."""
    branches: dict[str, str] = field(default_factory=dict)
    """Commits by `repository@branch`."""
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    token: str = "hf_right"
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and range of each request."""
    delay: float = 0
    """Seconds between two pieces of a large file."""
    broken: dict[str, bytes] = field(default_factory=dict)
    """Contents that arrive in place of files' own, by name."""

    def publish(self, repository: str, folder: Path, *, branch: str = "main") -> str:
        """Publish a folder as a repository's newest commit; return the commit's name."""
        digest = hashlib.sha1(usedforsecurity=False)
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
        commit = digest.hexdigest()
        self.repositories.setdefault(repository, {})[commit] = folder
        self.branches[f"{repository}@{branch}"] = commit
        return commit

    def fetched(self) -> list[str]:
        """Return the names of the files whose bytes were requested."""
        return [match["name"] for method, path, _ in self.asked if method == "GET" and (match := _FILE.fullmatch(path))]


@contextmanager
def a_hub() -> Iterator[Hub]:
    """Serve a hub while the block runs."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path, self.headers.get("Range", "")))
            match = _INFO.fullmatch(path) or _FILE.fullmatch(path)
            if match is None:
                return self._refuse(404, "", "Not Found")
            repository, revision = match["repo"], match["revision"] or "main"
            known = self.headers.get("Authorization") == f"Bearer {hub.token}"
            if repository not in hub.repositories or (repository in hub.private and not known):
                return self._refuse(404 if known else 401, "RepoNotFound", "Repository not found")
            if repository in hub.gated and not known and _FILE.fullmatch(path):
                return self._refuse(401, "GatedRepo", f"Access to model {repository} is restricted")
            commit = hub.branches.get(f"{repository}@{revision}", revision)
            if commit not in hub.repositories[repository]:
                return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            folder = hub.repositories[repository][commit]
            if "name" not in match.groupdict():
                return self._send(
                    json.dumps(_info(repository, commit, folder)).encode(), {"Content-Type": "application/json"}
                )
            file = folder / match["name"]
            if not file.is_file():
                return self._refuse(404, "EntryNotFound", "Entry not found", commit)
            return self._serve(file, hub.broken.get(match["name"], file.read_bytes()), commit)

        def _serve(self, file: Path, data: bytes, commit: str) -> None:
            large = file.name.endswith(LARGE)
            etag = hashlib.sha256(file.read_bytes()).hexdigest() if large else _blob(file.read_bytes())
            headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
            if large:
                headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted is None:
                return self._send(data, headers)
            begin, end = int(wanted[1]), int(wanted[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
            return self._send(data[begin : end + 1], headers, status=206)

        def _send(self, data: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            try:
                for start in range(0, len(data), 4096):
                    self.wfile.write(data[start : start + 4096])
                    if hub.delay and len(data) > 20_000:
                        self.wfile.flush()
                        time.sleep(hub.delay)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _refuse(self, status: int, code: str, message: str, commit: str = "") -> None:
            headers = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
            self._send(
                json.dumps({"error": message}).encode(), headers | ({"X-Repo-Commit": commit} if commit else {}), status
            )

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _info(repository: str, commit: str, folder: Path) -> dict[str, Any]:
    siblings = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = file.read_bytes()
        entry: dict[str, Any] = {
            "rfilename": file.relative_to(folder).as_posix(),
            "size": len(data),
            "blobId": _blob(data),
        }
        if file.name.endswith(LARGE):
            entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        siblings.append(entry)
    return {
        "id": repository,
        "modelId": repository,
        "sha": commit,
        "private": False,
        "tags": [],
        "downloads": 0,
        "siblings": siblings,
    }
