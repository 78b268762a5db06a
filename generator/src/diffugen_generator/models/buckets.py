"""Models in a bucket: `s3://BUCKET/FOLDER`, at the endpoint of `spec.output.s3` and with its credentials.

If the manifest has no store, `$AWS_ENDPOINT_URL` and `$AWS_REGION` give endpoint and region, as for AWS's own tools. A
bucket does not publish the SHA-256 of its objects, so each file is read once to compute it. Their ETags tell whether a
file is still the one that was read.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path

from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.failures import Missing
from diffugen_generator.families.checkpoint import CheckpointHeader
from diffugen_generator.models.digests import FileDigest
from diffugen_generator.models.headers import Head, read_header
from diffugen_generator.store.opening import addressing_style
from diffugen_generator.store.s3 import S3Store

_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<path>[^\s?#]+)")
_AWS = "https://s3.amazonaws.com"


class BucketFolder:
    """A folder of a bucket, or one object with `single`."""

    def __init__(self, uri: str, field: str, s3: S3 | None, *, single: bool = False) -> None:
        """Parse the URI; no request is sent yet. Raises `SpecError` if `uri` does not name a folder."""
        match = _URI.fullmatch(uri)
        if match is None:
            raise SpecError("UnknownModel", f"{field}: {uri!r} names nothing in a bucket; write s3://BUCKET/FOLDER.")
        self.uri, self._field = uri, field
        folder, _, last = match["path"].strip("/").rpartition("/")
        self.path = last if single else ""
        """The one object; empty for the whole folder."""
        if not single:
            folder = f"{folder}/{last}".strip("/")
        where = s3 or S3(
            endpoint=os.environ.get("AWS_ENDPOINT_URL") or _AWS,
            bucket=match["bucket"],
            region=os.environ.get("AWS_REGION") or "us-east-1",
            addressing_style=addressing_style(),
        )
        self._endpoint = where.endpoint
        self._bucket, self._folder = match["bucket"], folder
        self._store = S3Store(where.model_copy(update={"bucket": match["bucket"]}), folder)

    @property
    def identity(self) -> list[object]:
        """What identifies the folder's content: the same identity always means the same content."""
        files = {n: e for n, e in self._entries.items() if not self.path or n == self.path}
        return ["s3", self._endpoint, self._bucket, self._folder, files]

    def names(self) -> Collection[str]:
        """Return the names of its objects, relative to the folder."""
        return list(self._entries)

    def digest(self, name: str) -> FileDigest | None:
        """Read an object once, without keeping it, and return its digest; raise `SpecError` if it is incomplete."""
        whole, size, head = hashlib.sha256(), 0, Head(name)
        for chunk in self._store.stream(name):
            whole.update(chunk)
            size += len(chunk)
            head.take(chunk)
        try:
            head.check(size)
        except ValueError as error:
            raise SpecError("UnsupportedModel", f"{self._field}: {self.uri!r} {error}") from None
        return FileDigest(size, whole.hexdigest())

    def header(self, name: str) -> CheckpointHeader:
        """Return the header of a safetensors object; reads it by ranges."""
        try:
            return read_header(lambda offset, count: self._store.read_range(name, offset, count))
        except ValueError as error:
            raise SpecError(
                "UnsupportedModel", f"{self._field}: {self.uri!r} has a file {name}, and {error}; copy it again."
            ) from None

    def fetch(self, names: Collection[str], folder: Path) -> Mapping[str, FileDigest]:
        """Fetch objects into a folder; return their digests."""
        return {name: self._fetch(name, folder / name) for name in names}

    def _fetch(self, name: str, path: Path) -> FileDigest:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole, size = hashlib.sha256(), 0
        try:
            with path.open("wb") as file:
                for chunk in self._store.stream(name):
                    file.write(chunk)
                    whole.update(chunk)
                    size += len(chunk)
        except Missing:
            raise SpecError("UnknownModel", f"{self._field}: there is no {self.uri}; check its name.") from None
        return FileDigest(size, whole.hexdigest())

    @cached_property
    def _entries(self) -> dict[str, list[object]]:
        """ETag and size of each object by its name."""
        found = {name: [etag, size] for name, size, etag in self._store.details(self.path)}
        if not found:
            raise SpecError(
                "UnknownModel", f"{self._field}: there is nothing at {self.uri} ({self._endpoint}); check its name."
            )
        return found
