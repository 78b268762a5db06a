"""A model's digest: the SHA-256 over names, sizes and SHA-256s of the files that are read.

Hubs publish the SHA-256 of large files. So the digest of a model is known without a download of its weights. The same
files have the same digest in every place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_CHUNK = 1 << 20


class FileDigest(NamedTuple):
    """One file's content."""

    size: int
    """Bytes."""
    sha256: str
    """In hex."""


def digest_of(files: Mapping[str, FileDigest]) -> str:
    """Return the digest of a model with these files, in hex."""
    whole = hashlib.sha256()
    for name, (size, sha256) in sorted(files.items()):
        encoded = name.encode()
        whole.update(len(encoded).to_bytes(8, "big") + encoded + size.to_bytes(8, "big") + bytes.fromhex(sha256))
    return whole.hexdigest()


def hashed(path: Path) -> FileDigest:
    """Return the digest of a local file. A file that did not change since the last call is not read again.

    The time of the last change of the inode (ctime) counts, too: no program can set it, and a file that takes another
    one's place may get its inode, its size and its mtime.
    """
    status = path.stat()
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return FileDigest(status.st_size, _sha256(path, identity))


@lru_cache(maxsize=512)
def _sha256(path: Path, _identity: tuple[int, ...]) -> str:
    whole = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            whole.update(chunk)
    return whole.hexdigest()
