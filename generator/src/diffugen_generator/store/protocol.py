"""The protocol of an object store, as one dataset uses it.

Keys are those of `diffugen_api.layout`, relative to the dataset's root, with "/" between their parts. A write is
atomic: a reader sees the whole object or none. The caller orders the writes of several objects. Threads can share a
store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

BINARY = "application/octet-stream"
JSON = "application/json"


class Store(Protocol):
    """A dataset's part of an object store."""

    uri: str
    """The dataset's root, for messages: `s3://bucket/prefix/namespace/name`, or the path of a folder."""

    def check(self) -> None:
        """Raise the `StoreFailure` that a read would raise; takes 15 s at most."""

    def read(self, key: str) -> bytes:
        """Return an object's bytes; raise `Missing` if it does not exist."""
        ...

    def write(self, key: str, data: bytes, content_type: str = BINARY) -> None:
        """Write an object atomically; replace an existing one."""

    def upload(self, key: str, path: Path, content_type: str = BINARY) -> None:
        """Write a local file of any size as an object, atomically."""

    def read_tagged(self, key: str) -> tuple[bytes | None, str]:
        """Return an object's bytes and the tag of this content for `replace`; None and "" if it does not exist."""
        ...

    def replace(self, key: str, data: bytes, tag: str, content_type: str = BINARY) -> bool:
        """Write an object if its content still has the `tag` ("": if it does not exist); return whether it was written.

        Of several writers that read the same content, one succeeds.
        """
        ...

    def exists(self, key: str) -> bool:
        """Return whether an object with exactly this key exists."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix`, at any depth, sorted by their UTF-8 bytes."""
        ...

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the keys that begin with `prefix` as `list` does, each with its object's size in bytes."""
        ...

    def stream(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """Yield an object's bytes from `offset` on, in chunks; raise `Missing` if it does not exist."""
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the names of the folders right below `prefix` (which ends in a slash, or is empty), sorted."""
        ...

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store, without a download; raise `Missing` if the source does not exist."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete at most a thousand objects, in any order; a missing object is not a failure."""
