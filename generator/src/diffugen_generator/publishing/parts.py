"""The parts of a publication in shards: where they are in the store, and what they hold.

    shards/<revision>/_publish/<address>/
      decisions/00003.jsonl.gz   a line for each sample of the part that its label accepts, `decisions.py`
      decisions/00003.claim      a pod makes these decisions
      00003/part.json            what `RevisionWriter.join` needs; written last
      00003/files.jsonl.gz       the files of the revision that the part has written
      00003/manifest.jsonl.gz, 00003/<format>/...   local files of the part: lists, tar files, Parquet files

Images, label files and the report's blocks are in the revision's folder at once; only what has to be joined is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffugen_api import layout
from diffugen_api.plan import address
from diffugen_generator.failures import Damaged, Incomplete, Missing
from diffugen_generator.publishing.published import PublishedFile, lines_of, listed_file
from diffugen_generator.publishing.release import Release
from diffugen_generator.samples.documents import Schema, indented, read_document, sealed
from diffugen_generator.store.protocol import BINARY, JSON, Store

FILES = "files.jsonl.gz"
_DOCUMENT = "part.json"
_VERSION = 1
"""Raised when the files of a part change."""


@dataclass(frozen=True, slots=True)
class Division:
    """How a dataset is divided into shards: each has `size` consecutive samples, the last one also all that follow."""

    count: int
    size: int

    def first(self, index: int) -> int:
        """Return the number of a shard's first sample."""
        return index * self.size

    def length(self, index: int) -> int | None:
        """Return the most samples of a shard; None for the last one."""
        return self.size if index < self.count - 1 else None


class _PartContent(Schema):
    tally: dict[str, Any]
    formats: dict[str, dict[str, Any]]
    report: dict[str, Any]
    sheet: list[dict[str, Any]]
    uploads: dict[str, dict[str, Any]]
    index: list[str]
    decisions: str


@dataclass(frozen=True, slots=True)
class Part:
    """A finished part."""

    store: Store
    folder: str
    """Key of the part's folder, with its closing slash."""
    content: Mapping[str, Any]
    """What `RevisionWriter.part` returned."""

    def files(self) -> Iterator[PublishedFile]:
        """Yield the files of the revision that the part has written."""
        key = self.folder + FILES
        for line in lines_of(key, self.store.stream(key)):
            yield listed_file(key, line)

    def uploaded(self, path: str) -> PublishedFile:
        """Return a file in the part's folder, by its path there."""
        try:
            row = self.content["uploads"][path]
            return PublishedFile(path, int(row["size"]), str(row["sha256"]))
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise Damaged(self.folder + _DOCUMENT, f"it does not have {path}") from error


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one publication. Parts of other content, or of another division, are in other folders."""

    store: Store
    revision: str
    fingerprint: str
    """A hash over everything that decides the content except the spec."""
    division: Division

    @property
    def address(self) -> str:
        """A hash of everything that decides what the parts hold, except the spec."""
        return address([_VERSION, self.fingerprint, self.division.count, self.division.size])

    @property
    def folder(self) -> str:
        """Key of the folder of all parts, with its closing slash."""
        return f"{layout.publish_parts(self.revision)}{self.address}/"

    def document(self, index: int) -> str:
        """Return the key of a part's document."""
        return layout.publish_part(self.revision, self.address, index)

    def of(self, index: int) -> str:
        """Return the key of a part's folder, with its closing slash."""
        return self.document(index).removesuffix(_DOCUMENT)

    def decisions(self, index: int) -> str:
        """Return the key of the decisions on a part."""
        return f"{self.folder}decisions/{index:05d}.jsonl.gz"

    def claim(self, index: int) -> str:
        """Return the key of the mark that a pod makes these decisions."""
        return f"{self.folder}decisions/{index:05d}.claim"

    def is_complete(self, index: int) -> bool:
        """Return whether a part is finished; one whose document is damaged is not."""
        try:
            read_document(self.store, self.document(index), _PartContent)
        except (Missing, Damaged):
            return False
        return True

    def complete(self, index: int, content: Mapping[str, Any]) -> None:
        """Mark a part as finished."""
        self.store.write(self.document(index), indented(sealed(content)), JSON)

    def read(self, index: int) -> Part:
        """Return a finished part; raise `Incomplete` if it is not finished, and `Damaged` if it cannot be read."""
        folder = self.of(index)
        try:
            return Part(self.store, folder, read_document(self.store, self.document(index), _PartContent))
        except Missing:
            raise Incomplete(f"shard {index} of the publication is not in the store; plan again") from None

    def every(self) -> Iterator[Part]:
        """Yield all parts in their order.

        Raises `Incomplete` where one is not finished, and `Damaged` where one is damaged or does not fit the others.
        """
        digest = ""
        for index in range(self.division.count):
            part = self.read(index)
            digest = digest or str(part.content["decisions"])
            if part.content["decisions"] != digest:
                raise Damaged(part.folder, "it was written from other labels than the parts before it")
            yield part

    def discard(self) -> None:
        """Mark all parts as not finished, so that they are written again."""
        keys = [self.document(index) for index in range(self.division.count)]
        for start in range(0, len(keys), 1000):
            self.store.delete(keys[start : start + 1000])


@dataclass
class PartRelease(Release):
    """A revision's folder while one part of its samples is written: `upload` writes to the folder of the part."""

    part_folder: str = ""
    """Key of the part's folder, with its closing slash."""
    uploads: dict[str, PublishedFile] = field(default_factory=dict)
    """The files in the part's folder."""

    def upload(self, path: str, source: Path, content_type: str = BINARY) -> None:
        """Upload a local file to the part's folder, and delete the local file."""
        self.uploads[path] = self.stored(self.part_folder + path, path, source, content_type)

    def finish_part(self) -> dict[str, Any]:
        """Wait for all writes, write the list of files, and return the fields of `part.json` about files.

        Raises `Incomplete` where an image or a label is gone.
        """
        self.finish()
        files = self.scratch / FILES
        self.files.write_lines(files)
        self.store.upload(self.part_folder + FILES, files, "application/gzip")
        uploads = {path: file.row() for path, file in self.uploads.items()}
        return {"uploads": uploads, "index": list(self.files.index)}
