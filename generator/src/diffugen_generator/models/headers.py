"""Whether a file of weights is whole, as its own header tells: asked before anything is drawn, without torch.

A safetensors file is the length of its header (8 bytes, little endian), the header, which is JSON and says of each
tensor where its bytes begin and end, and these bytes (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from diffugen_generator.models.files import SAFE

_LARGEST: Final = 100_000_000
"""Bytes of a header: more is refused by safetensors itself."""
_LENGTH: Final = 8
_POINTER: Final = b"version "
"""How a pointer of Git LFS begins; taken for a length it would be a header of more bytes than any disk has."""


class Head:
    """Keeps the beginning of a file that passes by in chunks, as far as its header goes."""

    def __init__(self, name: str) -> None:
        """Begin with nothing of the file `name`; of one that is not safetensors nothing is kept."""
        self._name = name
        self._kept = bytearray()

    def take(self, chunk: bytes) -> None:
        """See the next chunk."""
        if len(self._kept) < self._wanted():
            self._kept += chunk

    def check(self, size: int) -> None:
        """Raise `ValueError` where the file, which has `size` bytes, is not whole; else do nothing."""
        if self._name.endswith(SAFE):
            _check(self._name, size, io.BytesIO(self._kept).read)

    def _wanted(self) -> int:
        if not self._name.endswith(SAFE):
            return 0
        if len(self._kept) < _LENGTH:
            return _LENGTH
        return _LENGTH + min(int.from_bytes(self._kept[:_LENGTH], "little"), _LARGEST)


def check_whole(folder: Path, names: Iterable[str]) -> None:
    """Raise `ValueError` where one of the safetensors files `names` in `folder` is not whole.

    Absent ones are not asked. The text goes on a sentence about the model.
    """
    for name in sorted(names):
        path = folder / name
        if name.endswith(SAFE) and path.is_file():
            with path.open("rb") as stream:
                _check(name, path.stat().st_size, stream.read)


def _check(name: str, size: int, read: Callable[[int], bytes]) -> None:
    start = read(_LENGTH)
    if start == _POINTER:
        raise ValueError(f"has a pointer of Git LFS in place of {name}; fetch the file itself with `git lfs pull`.")
    try:
        stated = _stated(start, read)
    except (struct.error, ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(f"has a file {name} whose header cannot be read: it is broken; copy it anew.") from None
    if stated != size:
        raise ValueError(
            f"has a file {name} of {size:,} bytes whose header tells of {stated:,}: it was cut short or is broken; "
            "copy it anew."
        )


def _stated(start: bytes, read: Callable[[int], bytes]) -> int:
    """Return how many bytes a file has by its header."""
    (length,) = struct.unpack("<Q", start)
    if length > _LARGEST:
        raise ValueError
    header = json.loads(read(length))
    ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    return _LENGTH + int(length) + max(ends, default=0)
