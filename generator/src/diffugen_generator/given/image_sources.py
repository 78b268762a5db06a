"""Where `diffugen label` finds the user's files: a folder or a bucket.

Each file is handled by itself. A file or folder that cannot be read is yielded with the reason, and the walk goes on.
The folder that the command writes its datasets to may lie inside; it is left out, so that the command's output never
becomes its input.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from diffugen_api import layout
from diffugen_api.plan import SpecError
from diffugen_generator.failures import Missing
from diffugen_generator.store.protocol import Store

NO_PERMISSION: Final = "NoPermission"
NOT_A_FILE: Final = "NotAFile"
"""A FIFO, a socket or a device; reading it could wait for ever."""
BROKEN_LINK: Final = "BrokenLink"
"""A symbolic link to nothing, or to itself."""
LINK_LOOP: Final = "LinkLoop"
"""A symbolic link to a folder above it."""
DATASET: Final = "PublishedDataset"
"""The folder of a published dataset: it has the same image several times. Name it as DIR to label its images."""
NAME_NOT_UTF8: Final = "NameNotUTF8"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file, or a folder that cannot be read."""

    name: str
    """The path relative to the folder or bucket, with "/" between its parts. Bytes that are not UTF-8 are escaped."""
    reason: str = ""
    """Why it cannot be read, in CamelCase; empty where it can."""


class ImageSource(Protocol):
    """The files that a user wants labeled."""

    uri: str

    def check(self) -> None:
        """Raise the `StoreFailure` that a read would raise."""

    def files(self) -> Iterator[SourceFile]:
        """Yield all files, also those that are no images, folder by folder, sorted by name."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises Missing if there is none, and OSError if it cannot be read."""
        ...


class FolderSource:
    """The files of a folder and of the folders in it, except those of `left_out`."""

    def __init__(self, root: Path, left_out: Path | None = None) -> None:
        """Use the folder `root`, which exists."""
        self.root = root.absolute()
        self.uri = str(self.root)
        self._left_out = None if left_out is None else left_out.resolve()

    def check(self) -> None:
        """Raise SpecError if the folder itself cannot be read."""
        try:
            os.scandir(self.root).close()
        except OSError as error:
            message = f"DIR: the folder {self.uri} cannot be read ({error.strerror}); name another folder."
            raise SpecError("NoPermission", message) from error

    def files(self) -> Iterator[SourceFile]:
        """Yield the files. Links are followed."""
        yield from self._below(self.root, "", [_identity(self.root)])

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        path = self.root.joinpath(*name.split("/"))
        try:
            if not path.is_file():  # opening a FIFO would wait for a writer
                raise Missing(name, self.uri)
            return path.read_bytes()
        except FileNotFoundError:
            raise Missing(name, self.uri) from None

    def _below(self, folder: Path, prefix: str, above: list[tuple[int, int]]) -> Iterator[SourceFile]:
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield SourceFile(prefix.rstrip("/") or ".", _reason_of(error))
            return
        for entry in found:
            name = prefix + entry.name
            if not _is_utf8(name):
                yield SourceFile(os.fsencode(name).decode("utf-8", "backslashreplace"), NAME_NOT_UTF8)
                continue
            path = folder / entry.name
            try:
                if entry.is_dir():
                    if path.resolve() == self._left_out:
                        continue
                    if (identity := _identity(path)) in above:
                        yield SourceFile(name, LINK_LOOP)
                    elif (path / layout.CURRENT).is_file() and (path / "revisions").is_dir():
                        yield SourceFile(name, DATASET)
                    else:
                        yield from self._below(path, f"{name}/", [*above, identity])
                elif entry.is_file():
                    yield SourceFile(name)
                else:
                    yield SourceFile(name, NOT_A_FILE if path.exists() else BROKEN_LINK)
            except OSError as error:
                yield SourceFile(name, _reason_of(error))


class BucketSource:
    """The objects below a prefix of a bucket, except those below `left_out`."""

    def __init__(self, store: Store, left_out: str = "") -> None:
        """Use the objects of `store`; keys that begin with `left_out` are left out, "" leaves out none."""
        self._store = store
        self.left_out = left_out
        self.uri = store.uri

    def check(self) -> None:
        """Raise the `StoreFailure` that a read would raise."""
        self._store.check()

    def files(self) -> Iterator[SourceFile]:
        """Yield the objects. A key that a folder could not have is left out."""
        for key in self._store.list(""):
            if not (self.left_out and key.startswith(self.left_out)):
                yield SourceFile(key)

    def read(self, name: str) -> bytes:
        """Return an object's bytes."""
        return self._store.read(name)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # the name has bytes that are not UTF-8
        return False
    return True


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _reason_of(error: OSError) -> str:
    if error.errno in {errno.EACCES, errno.EPERM}:
        return NO_PERMISSION
    return BROKEN_LINK if error.errno in {errno.ELOOP, errno.ENOENT} else "Unreadable"
