"""MinIO's client with cheaper requests, for datasets of a million samples.

- List: keys only. The client builds an object of nine fields for every key, which costs 50 µs; a million samples
  have three million keys.
- Folders: names only, without the objects in them.
- Delete: a thousand keys per request, and the first error is returned.
- Copy: one request. The client asks for the size first, to copy objects above 5 GB in parts; images are smaller.
- Conditional write: the client has no method for it.

All use of the client's private parts is in this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote, unquote_plus
from xml.sax.saxutils import unescape

from minio import Minio
from minio.deleteobjects import DeleteError, DeleteObject
from minio.error import InvalidResponseError

_KEY = re.compile(rb"<Key>([^<]*)</Key>")
_SIZE = re.compile(rb"<Contents>.*?<Key>([^<]*)</Key>.*?<Size>(\d+)</Size>.*?</Contents>", re.DOTALL)
_PREFIX = re.compile(rb"<CommonPrefixes><Prefix>([^<]*)</Prefix></CommonPrefixes>")
_TOKEN = re.compile(rb"<NextContinuationToken>([^<]*)</NextContinuationToken>")


_Fields = dict[str, str | list[str] | tuple[str]]


class NoStoreAnswerError(ValueError):
    """The answer does not come from an S3 store."""


class LeanMinio(Minio):
    """MinIO's client with the methods below, which raise the client's exceptions."""

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        """Yield the keys of a bucket that begin with `prefix`, sorted, a thousand per request."""
        return (key for (key,) in self._listed(bucket, {"prefix": prefix}, _KEY))

    def sizes(self, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the keys of a bucket that begin with `prefix` and the sizes of their objects, sorted."""
        return ((key, int(size)) for key, size in self._listed(bucket, {"prefix": prefix}, _SIZE))

    def folders(self, bucket: str, prefix: str) -> Iterator[str]:
        """Yield the common prefixes, up to and with the next slash, of the keys that begin with `prefix`, sorted."""
        return (name for (name,) in self._listed(bucket, {"prefix": prefix, "delimiter": "/"}, _PREFIX))

    def _listed(self, bucket: str, query: _Fields, what: re.Pattern[bytes]) -> Iterator[tuple[str, ...]]:
        """Yield the groups of each match of `what`; the first group is a key."""
        token = ""
        while True:
            page = self._page(bucket, query, token)
            # the store percent-encodes keys only if it supports the parameter
            encoded = b"<EncodingType>url</EncodingType>" in page
            for match in what.finditer(page):
                key, *others = (group.decode() for group in match.groups())
                yield unquote_plus(key) if encoded else unescape(key), *others
            following = _TOKEN.search(page)
            if following is None:
                return
            token = unescape(following.group(1).decode())

    def copy(self, bucket: str, source: str, target: str) -> None:
        """Copy an object of at most 5 GB inside a bucket."""
        header: _Fields = {"x-amz-copy-source": quote(f"/{bucket}/{source}")}
        answer = self._answer("PUT", bucket, target, headers=header)
        # S3 can answer 200 and fail afterwards (API reference, CopyObject)
        if b"<CopyObjectResult" not in answer:
            raise NoStoreAnswerError(f"the copy of {source} failed: {answer[:200]!r}")

    def put_if(self, bucket: str, key: str, data: bytes, tag: str, content_type: str) -> None:
        """Write an object if its ETag is still `tag`; with an empty `tag`, only if the object does not exist.

        Raises `S3Error` with the code PreconditionFailed or ConditionalRequestConflict if another writer was first
        (API reference, "Conditional writes").
        """
        condition: _Fields = {"If-Match": f'"{tag}"'} if tag else {"If-None-Match": "*"}
        self._answer("PUT", bucket, key, headers={**condition, "Content-Type": content_type}, body=data)

    def delete(self, bucket: str, keys: Sequence[str]) -> DeleteError | None:
        """Delete at most a thousand objects; return the error of the first that was not deleted."""
        return next(iter(self.remove_objects(bucket, [DeleteObject(key) for key in keys])), None)

    def _page(self, bucket: str, asked: _Fields, token: str) -> bytes:
        query: _Fields = {"list-type": "2", "encoding-type": "url", "max-keys": "1000", **asked}
        if token:
            query["continuation-token"] = token
        page = self._answer("GET", bucket, query_params=query)
        if b"<ListBucketResult" not in page:
            raise NoStoreAnswerError(f"not a listing: {page[:60]!r}")
        return page

    def _answer(
        self,
        method: str,
        bucket: str,
        key: str | None = None,
        *,
        headers: _Fields | None = None,
        query_params: _Fields | None = None,
        body: bytes | None = None,
    ) -> bytes:
        """Send a signed request and return the answer's body.

        `Minio._execute` is private, but the client has no public method for custom requests. Only this method calls it;
        a test fails when its signature changes.
        """
        answer: bytes = self._execute(method, bucket, key, body=body, headers=headers, query_params=query_params).data
        return answer


def use_addressing_style(client: Minio, style: str) -> None:
    """Let requests name the bucket by path (`path`) or by host (`virtual`); `auto` leaves it to the client."""
    if style == "virtual":
        client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    elif style == "path":
        client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]


def status_of(error: InvalidResponseError) -> int:
    """Return the HTTP status of an answer that is not XML; the client keeps it in a private attribute only."""
    return int(error._code)
