"""The list of all published files of a revision: path, size in bytes and SHA-256 of each.

`dataset.json` has it in `files`. With more than `LISTED` files, `files` has only the index files, and one of these,
`files.jsonl.gz`, has a line for every file: with a million images, `dataset.json` would have hundreds of megabytes. The
order is that of publishing, so the same content gives the same bytes. The list is kept in a local file; memory grows by
8 bytes a file.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from diffugen_generator.publishing.published import FILE_LIST, PublishedFile

LISTED = 10_000
"""The most files that `dataset.json` lists one by one."""

_SHOWN = 10
"""The most missing files that are named."""
_STEP = 1 << 16
"""Files that are compared at a time."""
_CHUNK = 1 << 20
"""Bytes that are compressed at a time."""


class FileList:
    """Collects the published files. Use it from one thread."""

    def __init__(self, scratch: IO[str]) -> None:
        """Begin an empty list; `scratch` is a local file, open for writing and reading."""
        self._scratch = scratch
        self._marks = array("Q")
        self.index: dict[str, PublishedFile] = {}
        """The index files, by their path: all but the many small files."""

    def __len__(self) -> int:
        return len(self._marks)

    def add(self, file: PublishedFile, *, index: bool) -> None:
        """Add a file; `index` is false for one of many small files, such as images."""
        # the JSON of the encoder, in a quarter of its time
        path = encode_basestring_ascii(file.path)
        self._scratch.write(f'{{"path": {path}, "size": {file.size}, "sha256": "{file.sha256}"}}\n')
        self._marks.append(_mark(file.path, file.size))
        if index:
            self.index[file.path] = file

    def __iter__(self) -> Iterator[PublishedFile]:
        """Yield all files, in the order of `add`."""
        self._scratch.flush()
        with Path(self._scratch.name).open(encoding="utf-8") as lines:
            for line in lines:
                yield PublishedFile(**json.loads(line))

    def missing(self, sizes: Iterable[tuple[str, int]]) -> list[str]:
        """Return up to ten paths that are not in `sizes`, or have another size there."""
        return _missing(self._marks, lambda: iter(self), sizes)

    @property
    def is_long(self) -> bool:
        """Whether the list needs a file of its own, `write_lines`."""
        return len(self) > LISTED

    def write_lines(self, path: Path) -> None:
        """Write the list as gzipped JSON lines."""
        squeeze = zlib.compressobj(6, zlib.DEFLATED, wbits=31)
        self._scratch.flush()
        with Path(self._scratch.name).open("rb") as lines, path.open("wb") as out:
            while chunk := lines.read(_CHUNK):
                out.write(squeeze.compress(chunk))
            out.write(squeeze.flush())

    def row(self) -> dict[str, Any]:
        """Return the fields of `dataset.json`."""
        if self.is_long:
            return {"files": {path: file.row() for path, file in sorted(self.index.items())}, "fileList": FILE_LIST}
        return {"files": {file.path: file.row() for file in sorted(self)}}


def missing_files(files: Callable[[], Iterator[PublishedFile]], sizes: Iterable[tuple[str, int]]) -> list[str]:
    """Return up to ten paths of `files` that are not in `sizes`, paths with sizes, or have another size there.

    Memory is 8 bytes a file; `files` is called again if something is missing.
    """
    return _missing(array("Q", (_mark(file.path, file.size) for file in files())), files, sizes)


def _missing(
    marks: Iterable[int], files: Callable[[], Iterator[PublishedFile]], sizes: Iterable[tuple[str, int]]
) -> list[str]:
    there = np.fromiter((_mark(path, size) for path, size in sizes), np.uint64)
    there.sort()
    absent = {int(mark) for mark in _absent(np.fromiter(marks, np.uint64), there)}
    return sorted({file.path for file in files() if _mark(file.path, file.size) in absent}) if absent else []


def _absent(marks: NDArray[np.uint64], there: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return up to ten of `marks`, the lowest, that are not in `there`, which is sorted; a step of them at a time."""
    absent = marks[:0]
    for start in range(0, len(marks), _STEP):
        step = marks[start : start + _STEP]
        at = np.searchsorted(there, step)
        found = there[np.minimum(at, len(there) - 1)] == step if len(there) else np.zeros(len(step), np.bool_)
        absent = np.unique(np.concatenate([absent, step[~found]]))[:_SHOWN]
    return absent


def _mark(path: str, size: int) -> int:
    """Return 64 bits of a hash over a file's path and size."""
    return int.from_bytes(hashlib.blake2b(f"{size} {path}".encode(), digest_size=8).digest(), "little")
