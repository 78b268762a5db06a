"""`diffugen pull`: a published revision in a local folder, every file checked against its SHA-256.

    DIR/<revision>/   the files of the revision, complete
    DIR/current       a link to the revision that was pulled last
    DIR/.<revision>.part/   what has arrived of a pull that is not finished

Files arrive in the hidden folder; the revision's own folder appears when all of them are there and right. A pull that
was interrupted goes on where it was, inside a large file too. A revision that is there already gets only what it lacks:
another format, or a file that differs from its SHA-256.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

from diffugen_api.plan import SpecError
from diffugen_generator.bounded_pool import in_order
from diffugen_generator.commands.published_at import CURRENT
from diffugen_generator.failures import FilesDamaged, Interrupted, Missing
from diffugen_generator.publishing.published import PublishedFile
from diffugen_generator.publishing.reading import PublishedDataset
from diffugen_generator.telemetry.reporter import Reporter

DATASET = "dataset.json"
REPORT = "report"
"""The report needs its folder of images, so it is pulled only with all formats."""

_FETCHERS = 16
"""Files that are fetched at the same time."""
_WINDOW = 64
_SHOWN = 5
"""How many damaged files a message names."""


@dataclass(frozen=True, slots=True)
class PullResult:
    """The result of a pull."""

    uri: str
    revision: str
    folder: Path
    files: int
    """Files of the revision that are in the folder now."""
    fetched: int
    """Files that were not there before."""
    fetched_bytes: int

    def row(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            "uri": self.uri,
            "revision": self.revision,
            "folder": str(self.folder),
            "current": str(self.folder.parent / CURRENT),
            "files": self.files,
            "fetched": self.fetched,
            "fetchedBytes": self.fetched_bytes,
        }


def pull(
    published: PublishedDataset, target: Path, formats: Sequence[str], display: Reporter, *, stop: Event
) -> PullResult:
    """Fetch a revision into `target`; with `formats`, only the index files and the folders of these formats.

    Raises `SpecError` for a format that it does not have, `FilesDamaged` naming files that differ from `dataset.json`,
    and a `Failure` of the store. Then nothing has changed under the final name.
    """
    check_formats(published, formats)
    with only_one(target):
        final, part = target / published.name, target / f".{published.name}.part"
        count = needed = 0
        for file in _wanted(published, formats):
            count += 1
            if not ((final / file.path).exists() or (part / file.path).exists()):
                needed += max(0, file.size)
        check_space(target, needed)
        fetch = _Fetch(published, final, part, stop)
        with display.task("pulling", "files") as advance:
            fetching = in_order(fetch.file, _wanted(published, formats), workers=_FETCHERS, window=_WINDOW)
            for done, _ in enumerate(fetching, start=1):
                advance(done, count)
        if fetch.damaged:
            raise _damaged(published, sorted(fetch.damaged))
        _remove_others(part, {file.path for file in _wanted(published, formats)})
        _put(part / DATASET, published.store.read(f"{published.folder}{DATASET}"))
        _install(part, final)
        point_to(target, final)
    return PullResult(
        published.uri, str(published.dataset["revision"]), final, count + 1, fetch.fetched, fetch.fetched_bytes
    )


def check_formats(published: PublishedDataset, formats: Sequence[str]) -> None:
    """Raise `SpecError` for a format that a revision does not have."""
    for name in formats:
        if name not in published.formats:
            raise SpecError(
                "UnknownFormat",
                f"--format: {published.uri} has no format {name!r}; it has {', '.join(published.formats)}; "
                "`diffugen export` makes another one of it.",
            )


class _Fetch:
    """Fetches files, several at a time."""

    def __init__(self, published: PublishedDataset, final: Path, part: Path, stop: Event) -> None:
        self._published = published
        self._final = final
        self._part = part
        self._stop = stop
        self._lock = Lock()
        self.damaged: list[str] = []
        self.fetched = 0
        self.fetched_bytes = 0

    def file(self, file: PublishedFile) -> None:
        """Have a file in the folder of the revision or in the hidden folder."""
        if self._stop.is_set():
            raise Interrupted("the pull was stopped; the same command goes on where it was")
        out = self._part / file.path
        if is_whole(self._final / file.path, file) or is_whole(out, file):
            return
        arriving = out.with_name(f"{out.name}.part")
        out.parent.mkdir(parents=True, exist_ok=True)
        began = arriving.exists()
        right = self._arrive(file, arriving)
        if not right and began:  # what an earlier pull left was of no use: fetch the file from its beginning
            right = self._arrive(file, arriving)
        if not right:
            self.damaged.append(file.path)
            return
        arriving.replace(out)
        with self._lock:
            self.fetched += 1
            self.fetched_bytes += out.stat().st_size

    def _arrive(self, file: PublishedFile, arriving: Path) -> bool:
        """Fetch what is missing of a file; return whether it is right, and delete it if not."""
        digest, offset = hashlib.sha256(), 0
        with suppress(FileNotFoundError), arriving.open("rb") as there:
            while chunk := there.read(1 << 20):
                digest.update(chunk)
                offset += len(chunk)
        if 0 <= file.size < offset:
            digest, offset = hashlib.sha256(), 0
            arriving.unlink()
        key = self._published.folder + file.path
        with arriving.open("ab") as out:
            try:
                for chunk in self._published.store.stream(key, offset):
                    digest.update(chunk)
                    out.write(chunk)
                    offset += len(chunk)
                    if self._stop.is_set():
                        raise Interrupted("the pull was stopped; the same command goes on where it was")
            except Missing:
                arriving.unlink()
                return False
        right = file.size in {-1, offset} and file.sha256 in {"", digest.hexdigest()}
        if not right:
            arriving.unlink()
        return right


def is_whole(path: Path, file: PublishedFile) -> bool:
    """Whether a local file has the size and the SHA-256 of a published one."""
    try:
        if file.size not in {-1, path.stat().st_size}:
            return False
        with path.open("rb") as data:
            return file.sha256 in {"", hashlib.file_digest(data, "sha256").hexdigest()}
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False


def _wanted(published: PublishedDataset, formats: Sequence[str]) -> Iterator[PublishedFile]:
    for file in published.files():
        top, slash, _ = file.path.partition("/")
        if not formats or (top in formats if slash else not top.startswith(REPORT)):
            yield file


def _damaged(published: PublishedDataset, paths: Sequence[str]) -> FilesDamaged:
    shown = ", ".join(paths[:_SHOWN]) + (f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else "")
    return FilesDamaged(
        f"{published.uri}: {len(paths):,} file{'' if len(paths) == 1 else 's'} missing or different from what "
        f"dataset.json says: {shown}; nothing was put in place; publish the dataset again, or see `diffugen verify`"
    )


@contextmanager
def only_one(target: Path) -> Iterator[None]:
    """Make the folder `target` and let no other process use it in this way meanwhile; raise `SpecError` if one does."""
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise SpecError("NotAFolder", f"DIR: {target} is a file, or below one; name another folder.") from None
    lock = os.open(target, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed, also if the process dies
        except BlockingIOError:
            raise SpecError("InUse", f"DIR: another diffugen writes to {target}; wait for it.") from None
        yield
    finally:
        os.close(lock)


def check_space(target: Path, needed: int) -> None:
    """Raise an `OSError` for a full disk if fewer than `needed` bytes are free."""
    free = shutil.disk_usage(target).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{target} has {free:,} bytes free, and {needed:,} are needed")


def _remove_others(part: Path, wanted: set[str]) -> None:
    """Delete what an earlier pull of other formats left in the hidden folder."""
    if not part.exists():
        return
    for path in sorted(part.rglob("*"), reverse=True):  # what is in a folder comes before it
        if path.is_dir():
            with suppress(OSError):  # not empty
                path.rmdir()
        elif path.relative_to(part).as_posix() not in wanted:
            path.unlink()


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _install(part: Path, final: Path) -> None:
    """Give the files of the hidden folder their final place; `dataset.json` comes last."""
    if not final.exists():
        part.replace(final)
        return
    files = sorted(path.relative_to(part) for path in part.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda each: each.as_posix() == DATASET):
        (final / path).parent.mkdir(parents=True, exist_ok=True)
        (part / path).replace(final / path)
    shutil.rmtree(part)


def point_to(target: Path, final: Path) -> None:
    """Let the link `current` in `target` name the folder `final`, in one step."""
    link = target / CURRENT
    if link.exists() and not link.is_symlink():
        raise SpecError("NotALink", f"DIR: {link} is not a link of diffugen; move it away, then pull again.")
    fresh = target / f".{uuid.uuid4().hex}"
    fresh.symlink_to(final.name)
    fresh.replace(link)
