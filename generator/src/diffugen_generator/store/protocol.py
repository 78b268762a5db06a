"""The protocol of a dataset's part of an object store.

Keys are those of `diffugen_api.layout`, relative to the dataset's root, with "/" between their parts. A write is
atomic: a reader sees the whole object or none. The order of writes of several objects is up to the caller. Stores can
be shared between threads.
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
    """Where the root is, for people: `s3://bucket/prefix/namespace/name`, or a folder's path."""

    def check(self) -> None:
        """Raise the `StoreFailure` that reading would meet; return soon either way (15 s at most)."""

    def read(self, key: str) -> bytes:
        """Return an object's bytes; raise `Missing` where there is none."""
        ...

    def write(self, key: str, data: bytes, content_type: str = BINARY) -> None:
        """Write an object, whole or not at all; one that is there is replaced."""

    def upload(self, key: str, path: Path, content_type: str = BINARY) -> None:
        """Write a local file of any size as an object, whole or not at all."""

    def exists(self, key: str) -> bool:
        """Return whether there is an object under this very key."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix`, at any depth, sorted by their UTF-8 bytes."""
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the names of the folders right below `prefix` (which ends in a slash, or is empty), sorted."""
        ...

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store, without its bytes passing through here; raise `Missing`."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, at most a thousand, in any order; one that is not there is no failure."""
