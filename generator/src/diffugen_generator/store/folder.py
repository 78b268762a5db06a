"""A store in a local folder."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from diffugen_generator.failures import Missing, StoreFailure, StoreRefused
from diffugen_generator.store.protocol import BINARY

_PART = ".part"
"""Suffix of files that are being written; they are never listed."""
_NO_PART = frozenset({"", ".", ".."})
"""What no part of a key may be."""
_CHUNK = 1 << 20
"""Bytes of a chunk of `stream`."""


class FolderStore:
    """A store in a local folder, as `diffugen run --store DIR` uses it.

    A write goes to a temporary file that is renamed when it is complete and on the disk. A file that is renamed before
    its bytes are written can be empty after a power cut. A copy is a hard link if the file system supports it: objects
    are replaced and never changed in place, so a link has the same effect as a copy.
    """

    def __init__(self, root: Path) -> None:
        """Use the folder `root`; the first write creates it."""
        self.root = root.absolute()
        self.uri = str(self.root)

    def check(self) -> None:
        """Raise `StoreRefused` if the folder is not writable or is a file."""
        with self._failures("opened"):
            there = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not there.is_dir():
            raise StoreRefused(f"the store {self.uri} cannot be a folder: {there} is a file; name another folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise StoreRefused(
                f"the store {self.uri} is not writable: no permission to write to {there}; name another folder"
            )

    def read(self, key: str) -> bytes:
        """Return a file's bytes; raise `Missing` if it does not exist."""
        try:
            return _bytes_of(self._name(key))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Missing(key, self.uri) from None
        except OSError as error:
            raise self._failure(error, "read", key) from error

    def write(self, key: str, data: bytes, content_type: str = BINARY) -> None:
        """Write a file and rename it into place."""
        path = self._path(key)
        part = _part_of(path)
        with self._failures("written", key), _tidied(part):
            try:
                _write(part, data)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(part, data)
            part.replace(path)

    def read_tagged(self, key: str) -> tuple[bytes | None, str]:
        """Return a file's bytes and their SHA-256; None and "" if it does not exist."""
        try:
            data = self.read(key)
        except Missing:
            return None, ""
        return data, hashlib.sha256(data).hexdigest()

    def replace(self, key: str, data: bytes, tag: str, content_type: str = BINARY) -> bool:
        """Write a file if the current one still has the `tag`, under a lock of the store's folder."""
        with self._failures("written", key):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.root, os.O_RDONLY)
        try:
            with self._failures("locked", key):
                fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed, also if the process dies
            if self.read_tagged(key)[1] != tag:
                return False
            self.write(key, data, content_type)
            return True
        finally:
            os.close(lock)

    def upload(self, key: str, path: Path, content_type: str = BINARY) -> None:
        """Copy a local file and rename the copy into place."""
        target = self._path(key)
        part = _part_of(target)
        with self._failures("written", key), _tidied(part):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, part)
            _sync(part)
            part.replace(target)

    def exists(self, key: str) -> bool:
        """Return whether the file exists."""
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix`, sorted."""
        folder, _, beginning = prefix.rpartition("/")
        top = f"{folder}/" if folder else ""
        with self._failures("listed", prefix):
            yield from self._below(self._path(folder) if folder else self.root, top, beginning)

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the keys that begin with `prefix`, sorted, each with its file's size in bytes."""
        for key in self.list(prefix):
            with suppress(FileNotFoundError):  # deleted meanwhile
                yield key, os.stat(self._name(key)).st_size  # noqa: PTH116 - as in `read`

    def stream(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """Yield a file's bytes from `offset` on, in chunks; raise `Missing` if it does not exist."""
        with self._failures("read", key):
            try:
                file = self._path(key).open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise Missing(key, self.uri) from None
            with file:
                file.seek(offset)
                while chunk := file.read(_CHUNK):
                    yield chunk

    def copy(self, source: str, target: str) -> None:
        """Hard-link the file to the new name, or copy it if the file system has no links."""
        with suppress(OSError):  # most often the folder is there and the name is new; else each case is looked at
            os.link(self._name(source), self._name(target))
            return
        path, goal = self._path(source), self._path(target)
        part = _part_of(goal)
        with self._failures("written", target), _tidied(part):
            goal.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.hardlink_to(path)
            except FileNotFoundError:
                raise Missing(source, self.uri) from None
            except OSError:  # another file system, or one without links
                shutil.copyfile(path, part)
                _sync(part)
            part.replace(goal)

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the names of the folders right below `prefix`, sorted."""
        with self._failures("listed", prefix):
            top = self._path(prefix.rstrip("/")) if prefix else self.root
            with suppress(FileNotFoundError, NotADirectoryError):
                yield from sorted(path.name for path in top.iterdir() if path.is_dir())

    def delete(self, keys: Sequence[str]) -> None:
        """Delete files, and the folders that become empty."""
        for key in keys:
            path = self._path(key)
            with self._failures("deleted", key):
                path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self.root.parent:
                    break
                try:
                    folder.rmdir()
                except OSError:  # not empty, or already deleted
                    break

    @contextmanager
    def _failures(self, verb: str, key: str = "") -> Iterator[None]:
        """Turn an OSError into a failure that names the folder; a full disk stays an OSError."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise self._failure(error, verb, key) from error

    def _failure(self, error: OSError, verb: str, key: str) -> StoreFailure:
        kind = StoreRefused if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS} else StoreFailure
        what = f"{key!r} cannot be {verb}" if key else f"it cannot be {verb}"
        return kind(f"the store {self.uri}: {what} ({error.strerror or error}); name another folder")

    def _path(self, key: str) -> Path:
        return Path(self._name(key))

    def _name(self, key: str) -> str:
        """Return the path of a key's file; raise `ValueError` if it would be outside the folder."""
        if not _NO_PART.isdisjoint(key.split("/")):
            raise ValueError(f"not a key: {key!r}")
        return f"{self.uri}/{key}"

    def _below(self, folder: Path, prefix: str, beginning: str) -> Iterator[str]:
        try:
            with os.scandir(folder) as entries:
                # sorted with the slash, so that the keys come out sorted
                found = sorted(entry.name + "/" if entry.is_dir() else entry.name for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in found:
            if not name.startswith(beginning) or name.endswith(_PART):
                continue
            if name.endswith("/"):
                yield from self._below(folder / name, prefix + name, "")
            else:
                yield prefix + name


def _bytes_of(name: str) -> bytes:
    """Return a file's bytes, in half the time of `Path.read_bytes`: it counts, with a million small files."""
    number = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(number).st_size
        data = os.read(number, size + 1)
        if len(data) == size:  # one byte more was asked for, so this is the end
            return data
        while more := os.read(number, _CHUNK):
            data += more
        return data
    finally:
        os.close(number)


def _write(part: Path, data: bytes) -> None:
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(part: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _tidied(part: Path) -> Iterator[None]:
    """Remove a temporary file afterwards, also after an exception.

    After a rename it no longer exists, except for copies: rename(2) between two links of one file does nothing, so both
    links remain.
    """
    try:
        yield
    finally:
        with suppress(OSError):  # an earlier exception is more useful
            part.unlink(missing_ok=True)


def _part_of(path: Path) -> Path:
    return path.with_name(f".{uuid.uuid4().hex}{_PART}")
