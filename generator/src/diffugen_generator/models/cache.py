"""The cache of fetched files, for all processes and pods that share a folder.

An entry is a folder that is filled under another name and renamed when it is complete. Its mark is written last and
lists every file with its size. An entry without a mark, or with a file of another size, is not used. So a half-written
entry is never used, even if renames of the file system are not atomic. A lock lets one process fill an entry while the
others wait. If that process is killed, the next one continues with the files it left. If the file system has no locks,
each process fills its own folder; this costs a second download, but the result is correct.

Before the files of an entry are loaded, each process hashes them once and compares them with the mark. An entry with a
changed file is filled again. `$DIFFUGEN_MODEL_VERIFY=false` skips this.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import BaseFileLock, FileLock, Timeout

from diffugen_api.addresses import canonical
from diffugen_api.contract import ENV_MODEL_CACHE, ENV_MODEL_VERIFY
from diffugen_generator.failures import CacheUnusable
from diffugen_generator.models.digests import FileDigest, hashed

_MARK: Final = ".complete.json"
_POLL_SECONDS = 0.2
"""Time between two tries to get the lock."""
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}

log = logging.getLogger(__name__)

Fill = Callable[[Path], Mapping[str, FileDigest]]
"""Fills a folder, which may hold files of an earlier try; returns the digest of every file that counts."""


_UNUSABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT})
"""Errors of a file system that cannot hold the cache; any other error is an error of the download."""


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the cache: `$DIFFUGEN_MODEL_CACHE`, else `~/.cache/diffugen`."""
    return Path(environ.get(ENV_MODEL_CACHE) or Path.home() / ".cache" / "diffugen").absolute()


def entry(
    identity: object, fill: Fill, root: Path | None = None, *, verify: bool = False
) -> tuple[Path, dict[str, FileDigest]]:
    """Return the folder of an entry and the digests of its files; fill the entry if it does not exist.

    `identity` is JSON data that identifies the content; the same identity always means the same content. With `verify`,
    an entry whose files differ from their digests is filled again.
    Raises `CacheUnusable` if the cache cannot be written to, and what `fill` raises.
    """
    folder = _folder(identity, root)
    if (files := _sound(folder, verify=verify)) is not None:
        return folder, files
    try:
        with _part_of(folder) as part:
            if (files := _sound(folder, verify=verify)) is not None:  # another process was faster
                return folder, files
            files = dict(fill(part))
            _finish(part, folder, files, verify=verify)
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise
        raise CacheUnusable(
            f"the model cache {folder.parent} cannot be written to ({error.strerror}): make room, let the pods' user "
            f"write to spec.run.modelCache (fsGroup in run.podTemplate), or set {ENV_MODEL_CACHE} to another folder"
        ) from error
    return folder, files


def found(
    identity: object, root: Path | None = None, *, verify: bool = False
) -> tuple[Path, dict[str, FileDigest]] | None:
    """Return an entry if it exists and is complete; with `verify`, only if its files have their digests."""
    folder = _folder(identity, root)
    files = _sound(folder, verify=verify)
    return None if files is None else (folder, files)


def _folder(identity: object, root: Path | None) -> Path:
    return (root or cache_folder()) / "models" / hashlib.sha256(canonical(identity)).hexdigest()[:32]


def _sound(folder: Path, *, verify: bool) -> dict[str, FileDigest] | None:
    """Return the files of a complete entry; with `verify`, None if one of them differs from its digest."""
    files = _complete(folder)
    if files is None or not verify or os.environ.get(ENV_MODEL_VERIFY, "").lower() == "false":
        return files
    for name, digest in files.items():
        try:
            changed = hashed(folder / name) != digest
        except OSError:
            changed = True
        if changed:
            log.warning("%s is not the file that was fetched; it is fetched again", folder / name)
            return None
    return files


def _complete(folder: Path) -> dict[str, FileDigest] | None:
    """Return the files of a complete entry; None if there is none."""
    try:
        marked = json.loads((folder / _MARK).read_bytes())
        files = {name: FileDigest(int(size), str(sha256)) for name, (size, sha256) in marked["files"].items()}
        whole = all((folder / name).stat().st_size == size for name, (size, _) in files.items())
    except (AttributeError, KeyError, OSError, OverflowError, TypeError, ValueError):
        return None
    return files if whole else None


@contextmanager
def _part_of(folder: Path) -> Iterator[Path]:
    """Yield the folder to fill, under the entry's lock; without locks, a folder only for this process."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A soft lock remains when its process is killed, so it is not used on a file system without locks.
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), fallback_to_soft=False)
    if not _acquired(lock):
        own = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
        own.mkdir()
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)
        return
    try:
        part = folder.with_name(f".{folder.name}.part")
        part.mkdir(exist_ok=True)
        yield part
    finally:
        lock.release()


def _acquired(lock: BaseFileLock) -> bool:
    """Wait for the lock without a limit; return False if the file system has no locks."""
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log.info("another process is fetching the model; waiting for it")
            lock.acquire(poll_interval=_POLL_SECONDS)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _finish(part: Path, folder: Path, files: Mapping[str, FileDigest], *, verify: bool) -> None:
    for left in sorted(part.rglob("*"), reverse=True):
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()
        elif left.is_file() and left.relative_to(part).as_posix() not in files:
            left.unlink()
    for name in files:
        _sync(part / name)
    mark = part / _MARK
    mark.write_bytes(canonical({"files": {name: list(digest) for name, digest in files.items()}}))
    _sync(mark)
    if _sound(folder, verify=verify) is not None:  # without locks: another process was faster, and may be reading it
        return
    if folder.exists():  # an entry with shortened or missing files
        shutil.rmtree(folder)
    try:
        part.rename(folder)
    except OSError:
        if _sound(folder, verify=verify) is None:
            raise


def _sync(path: Path) -> None:
    """Write a file through to the disk, before the mark that lists it."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
