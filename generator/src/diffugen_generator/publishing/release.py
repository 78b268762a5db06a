"""A revision's folder while it is filled: everything that is published is written through it.

Files that are too large for memory are written to a local folder first and uploaded whole. Many small objects are
written by background threads. Path, size and SHA-256 of every file are kept for `dataset.json`.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO

from diffugen_api import layout
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.bounded_pool import BoundedPool
from diffugen_generator.failures import Damaged, Incomplete, Missing
from diffugen_generator.publishing.file_list import FileList
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.published import FILE_LIST, PublishedFile
from diffugen_generator.publishing.second_process import SecondProcess
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.samples.documents import discard
from diffugen_generator.store.protocol import BINARY, Store

BUFFER = 1 << 20
"""Bytes of a local text that are collected before they are written: each write lets other threads run first."""
_COPIES = 8
"""Images that a thread copies one after another."""

NOT_CONTENT = ("run", "suspend", "deletionPolicy", "revisionHistoryLimit")
"""Fields of the spec that published files leave out: they may differ between tries of one revision."""


@dataclass
class Release:
    """The folder of a revision in the store, and a local folder for files that are not finished yet."""

    store: Store
    folder: str
    """Key of the revision's folder, with its closing slash."""
    scratch: Path
    pool: BoundedPool
    spec: LabeledDatasetSpec
    open_files: ExitStack
    """Closes the local files when publishing ends, also after an error."""
    name: str
    """The name of the revision, or of its folder in the store if that differs."""
    lost: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """Samples whose image or label is missing or damaged, by their id: stage, object, and what happened to it."""
    second: SecondProcess | None = None
    """Makes sprites and reads small images, where there are many samples."""
    _copies: list[tuple[LabeledSample, str]] = field(default_factory=list)
    """Images that are to be copied, and the paths of the copies."""

    @cached_property
    def files(self) -> FileList:
        """All files that were written so far."""
        scratch = (self.scratch / "files.jsonl").open("w", buffering=BUFFER, encoding="utf-8")
        return FileList(self.open_files.enter_context(scratch))

    @property
    def splits(self) -> list[str]:
        """The splits that the spec asks for."""
        fractions = self.spec.output.splits
        return [split for split in ("train", "val", "test") if getattr(fractions, split) > 0]

    @cached_property
    def class_ids(self) -> dict[str, int]:
        """Each class's id, from 0, in the order of the manifest."""
        return {c.name: number for number, c in enumerate(self.spec.classes)}

    def open_binary(self, name: str) -> IO[bytes]:
        """Open a local file for writing."""
        return self.open_files.enter_context((self.scratch / name).open("wb"))

    def write(self, path: str, data: bytes, content_type: str = BINARY) -> None:
        """Write an index file."""
        self.store.write(self.folder + path, data, content_type)
        self.files.add(PublishedFile(path, len(data), hashlib.sha256(data).hexdigest()), index=True)

    def upload(self, path: str, source: Path, content_type: str = BINARY) -> None:
        """Upload a local file as an index file, and delete the local file."""
        self.files.add(self.stored(self.folder + path, path, source, content_type), index=True)

    def stored(self, key: str, path: str, source: Path, content_type: str) -> PublishedFile:
        """Upload a local file as the object `key` and delete it; return it as the published file `path`."""
        with source.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = source.stat().st_size
        self.store.upload(key, source, content_type)
        source.unlink()
        return PublishedFile(path, size, digest)

    def take(self, source: str, file: PublishedFile) -> None:
        """Take the object `source` as an index file; the store copies it in the background, without a download."""
        self.files.add(file, index=True)
        self.pool.submit(self.store.copy, source, self.folder + file.path)

    def put(self, path: str, data: bytes, content_type: str) -> None:
        """Write one of many small objects in the background."""
        self.files.add(PublishedFile(path, len(data), hashlib.sha256(data).hexdigest()), index=False)
        self.pool.submit(self.store.write, self.folder + path, data, content_type)

    def copy_image(self, image: StoredImage, path: str) -> None:
        """Copy a sample's image into the folder in the background; the store copies it without a download."""
        self.files.add(PublishedFile(path, image.size, image.sha256), index=False)
        self._copies.append((image.sample, path))
        if len(self._copies) == _COPIES:
            self._copy_all()

    def _copy_all(self) -> None:
        """Let a thread do the copies that wait: handing over a single one takes longer than a link in a folder."""
        copies, self._copies = self._copies, []
        if copies:
            self.pool.submit(self._copy_images, copies)

    def _copy_images(self, copies: list[tuple[LabeledSample, str]]) -> None:
        for sample, path in copies:
            try:
                self.store.copy(sample.image, self.folder + path)
            except Missing as missing:
                self.report(sample, missing)

    def write_file_list(self) -> None:
        """Write `files.jsonl.gz` if `dataset.json` cannot list all files; to be called after all other files."""
        if self.files.is_long:
            path = self.scratch / FILE_LIST
            self.files.write_lines(path)
            self.upload(FILE_LIST, path, "application/gzip")

    def missing(self) -> list[str]:
        """Return the paths of up to ten files that are not in the store, or have another size there."""
        skip = len(self.folder)
        return self.files.missing((key[skip:], size) for key, size in self.store.sizes(self.folder))

    def report(self, sample: LabeledSample, fault: Missing | Damaged) -> None:
        """Note that an image or a label of a sample is gone or damaged, and delete it so that it is made again."""
        if isinstance(fault, Damaged):
            discard(self.store, fault)
            self.lost[sample.sample.id] = (sample.stage, f"{fault.key} is damaged ({fault.why})", "")
            return
        # without its recipe, the next plan draws the image again
        self.store.delete([layout.recipe(sample.stage, sample.sample.id)])
        self.lost[sample.sample.id] = (
            sample.stage,
            f"the image of sample {sample.sample.id}",
            " is gone from the store",
        )

    def finish(self) -> None:
        """Wait until all background writes are done; raise `Incomplete` where an image or a label is gone."""
        self._copy_all()
        self.pool.finish()
        if self.lost:
            stage, what, verb = self.lost[min(self.lost)]
            more = f" (and {len(self.lost) - 1:,} more)" if len(self.lost) > 1 else ""
            raise Incomplete(f"stage {stage!r}: {what}{more}{verb}; plan again")
