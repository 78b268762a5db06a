"""How readers find a published dataset and its files: through `current.json` only."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from diffugen_api import layout
from diffugen_generator.bounded_json import json_of
from diffugen_generator.failures import Damaged
from diffugen_generator.samples.documents import Schema, read_document
from diffugen_generator.store.protocol import Store

FILE_LIST = "files.jsonl.gz"
"""The list of a dataset's files, where `dataset.json` does not list all of them."""

_STEP = 1 << 20
"""Bytes that are decompressed at a time."""
_MOST_LINE = 64 << 20
"""The longest line of a list or a manifest, in bytes."""


class PublishedFile(NamedTuple):
    """A file of a published revision."""

    path: str
    """In the revision's folder."""
    size: int
    """In bytes; -1 where a revision of an earlier version does not have it."""
    sha256: str
    """In hex; empty where a revision of an earlier version does not have it."""

    def row(self) -> dict[str, Any]:
        """Return size and digest as JSON data."""
        return {"size": self.size, "sha256": self.sha256}


class _Row(Schema):
    """The pointer's entry for one revision."""

    revision: str
    uri: str
    dataset: str
    publishedAt: str  # noqa: N815 - as in the file
    samples: int = Field(default=0, ge=0)


class _Pointer(_Row):
    manifestSHA256: str  # noqa: N815
    history: list[_Row] = Field(default=[], max_length=1000)


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _FileLine(_File):
    path: str = Field(min_length=1, max_length=1024)


_LINE = TypeAdapter(_FileLine)


class _Dataset(Schema):
    revision: str = Field(pattern="^[0-9a-f]{10}$")
    samples: int
    rejected: int
    instances: int
    sha256: dict[str, str] = Field(default={})
    """Of index files, as versions before `files` have it."""
    files: dict[str, _File] = Field(default={})
    fileList: str = ""  # noqa: N815 - as in the file
    acceptedByStage: dict[str, int]  # noqa: N815
    rejectedByStage: dict[str, int]  # noqa: N815
    rejectedByReason: dict[str, int]  # noqa: N815
    splits: dict[str, int]
    classes: dict[str, dict[str, int]]

    @model_validator(mode="after")
    def _lists_files(self) -> Self:
        if self.model_fields_set.isdisjoint({"files", "sha256"}):
            raise ValueError("it lists no files: neither files nor sha256 is there")
        if self.fileList and FILE_LIST not in self.files:
            raise ValueError(f"files lacks {FILE_LIST}, the list of all files")
        return self


def current_of(store: Store) -> dict[str, Any]:
    """Return the pointer; raise `Missing` where nothing is published, `Damaged` where it cannot be read."""
    return read_document(store, layout.CURRENT, _Pointer)


def dataset_of(store: Store) -> dict[str, Any]:
    """Return the `dataset.json` that the pointer names; raise `Missing` or `Damaged`."""
    return dataset_at(store, current_of(store)["dataset"])


def dataset_at(store: Store, key: str) -> dict[str, Any]:
    """Return a `dataset.json`; raise `Missing` or `Damaged`."""
    return read_document(store, key, _Dataset)


def folder_of(pointer: Mapping[str, Any]) -> str:
    """Return the key of a revision's folder, with its closing slash, from the pointer or a row of its history."""
    return str(pointer["dataset"]).removesuffix("dataset.json")


def digest_in(dataset: Mapping[str, Any], path: str) -> str:
    """Return the SHA-256 of an index file of a `dataset.json`, of this or an earlier version; empty if unknown."""
    files = dataset.get("files", {})
    return str(files[path]["sha256"]) if path in files else str(dataset.get("sha256", {}).get(path, ""))


def files_of(store: Store, folder: str, dataset: Mapping[str, Any]) -> Iterator[PublishedFile]:
    """Yield all files of a revision except `dataset.json`; raise `Missing`, or `Damaged` where the list is damaged.

    Earlier versions have the digests of index files only. There, the other files are those in the store.
    """
    if "files" not in dataset:
        digests: dict[str, str] = dataset["sha256"]
        for key, size in store.sizes(folder):
            if (path := key.removeprefix(folder)) != "dataset.json":
                yield PublishedFile(path, size, digests.get(path, ""))
        yield from (
            PublishedFile(path, -1, digest) for path, digest in digests.items() if not store.exists(folder + path)
        )
        return
    listed = {path: PublishedFile(path, row["size"], row["sha256"]) for path, row in dataset["files"].items()}
    if not dataset.get("fileList"):
        yield from listed.values()
        return
    yield listed[FILE_LIST]
    key = folder + FILE_LIST
    yield from (listed_file(key, line) for line in lines_of(key, store.stream(key)))


def listed_file(key: str, line: bytes) -> PublishedFile:
    """Return the file of a line of a list; raise `Damaged`, which names `key`, the list."""
    try:
        file = _LINE.validate_json(line)
    except ValidationError as error:
        raise Damaged(key, f"a line is not a file: {error.errors(include_url=False)[0]['msg']}") from None
    return PublishedFile(file.path, file.size, file.sha256)


def rows_of(key: str, chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of gzipped JSON lines, such as a manifest; raise `Damaged`, which names `key`."""
    for line in lines_of(key, chunks):
        try:
            row = json_of(line)
        except ValueError as error:
            raise Damaged(key, f"a line is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise Damaged(key, "a line is not a JSON object")
        yield row


def lines_of(key: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a gzip file that comes in chunks; raise `Damaged`, which names `key`."""
    unpack = zlib.decompressobj(wbits=31)
    rest = b""
    try:
        for chunk in chunks:
            data = chunk
            while data:
                *lines, rest = (rest + unpack.decompress(data, _STEP)).split(b"\n")
                yield from lines
                data = unpack.unconsumed_tail
                if len(rest) > _MOST_LINE:
                    raise Damaged(key, "a line is too long")
        *lines, rest = (rest + unpack.flush()).split(b"\n")
        yield from lines
    except zlib.error as error:
        raise Damaged(key, f"it is not a gzip file: {error}") from None
    if not unpack.eof:
        raise Damaged(key, "it is cut off")
    if rest:
        yield rest
