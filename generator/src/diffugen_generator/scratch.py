"""Folders for temporary files, which a later command removes if the process that made them was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "diffugen-"
_LOCK, _NEW_LOCK = ".lock", ".lock.new"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder below the system's temporary folder; remove it in the end, and those that killed processes left.

    A process holds a lock on a file in its folder. The kernel releases it when the process ends, for any cause.
    """
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with (folder / _NEW_LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / _NEW_LOCK).rename(folder / _LOCK)  # another process never sees it without the lock
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove this user's folders whose process has ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it has no lock file, or another process holds or removes it
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            with (folder / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
