"""A revision's folder while it is being filled: what every format writes through.

Files that are too large for memory are written here first and uploaded whole; many small objects go out beside
the caller. Each index file's SHA-256 is kept for `dataset.json`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from diffugen_api import layout
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.bounded_pool import Lane
from diffugen_generator.failures import Incomplete, Missing
from diffugen_generator.publishing.entries import Entry
from diffugen_generator.store.protocol import BINARY, Store


@dataclass
class Release:
    """The folder of a revision in the store, and a local one for files in the making."""

    store: Store
    folder: str
    """Key of the revision's folder, with its closing slash."""
    scratch: Path
    lane: Lane
    spec: LabeledDatasetSpec
    open_files: ExitStack
    """Closes the local files, whatever becomes of the release."""
    gone: dict[str, Entry] = field(default_factory=dict)
    """Entries whose picture the store has lost, by the sample's id."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each index file, by its path in the folder."""

    @property
    def splits(self) -> list[str]:
        """The splits that the spec asks for."""
        fractions = self.spec.output.splits
        return [split for split in ("train", "val", "test") if getattr(fractions, split) > 0]

    @property
    def class_ids(self) -> dict[str, int]:
        """Each class's id, from 0, in the order of the manifest."""
        return {c.name: number for number, c in enumerate(self.spec.classes)}

    def open_text(self, name: str) -> IO[str]:
        """Open a local file, to be written and then read."""
        return self.open_files.enter_context((self.scratch / name).open("w+", encoding="utf-8"))

    def open_binary(self, name: str) -> IO[bytes]:
        """Open a local file, to be written."""
        return self.open_files.enter_context((self.scratch / name).open("wb"))

    def write(self, path: str, data: bytes, content_type: str = BINARY) -> None:
        """Write an index file and keep its digest."""
        self.store.write(self.folder + path, data, content_type)
        self.files[path] = hashlib.sha256(data).hexdigest()

    def upload(self, path: str, source: Path, content_type: str = BINARY) -> None:
        """Upload a local file as an index file and keep its digest."""
        with source.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self.store.upload(self.folder + path, source, content_type)
        self.files[path] = digest

    def put(self, path: str, data: bytes, content_type: str) -> None:
        """Write one of many small objects, beside the caller."""
        self.lane.put(self.store.write, self.folder + path, data, content_type)

    def take(self, entry: Entry, path: str) -> None:
        """Copy an entry's picture into the folder, inside the store, beside the caller."""
        self.lane.put(self._copy, entry, path)

    def _copy(self, entry: Entry, path: str) -> None:
        try:
            self.store.copy(entry.image, self.folder + path)
        except Missing:
            self.report_gone(entry)

    def report_gone(self, entry: Entry) -> None:
        """Take note that an entry's picture is gone; without its recipe, the next plan has it drawn again."""
        self.store.delete([layout.recipe(entry.stage, entry.sample.id)])
        self.gone[entry.sample.id] = entry

    def finish(self) -> None:
        """Wait until all that was put or taken is in place; raise `Incomplete` where a picture is gone."""
        self.lane.finish()
        if self.gone:
            first = min(self.gone)
            more = f" (and {len(self.gone) - 1:,} more)" if len(self.gone) > 1 else ""
            raise Incomplete(
                f"stage {self.gone[first].stage!r}: the picture of sample {first}{more} is gone from the store; "
                "plan again"
            )


class Format(Protocol):
    """A way of writing the dataset down: told of every entry, then asked to finish."""

    def add(self, entry: Entry) -> None:
        """Take an entry, accepted or not."""

    def finish(self) -> None:
        """Write what could not be written before all entries were known."""


FormatMaker = Callable[[Release], Format]
