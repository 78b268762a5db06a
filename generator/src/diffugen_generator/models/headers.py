"""Reads the header of a weights file: whether the file is complete, and which tensors it has. Without torch.

A safetensors file has three parts: the length of its header (8 bytes, little endian), the header, and the bytes of the
tensors. The header is JSON. For each tensor it gives where the tensor's bytes begin and end
(https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from diffugen_generator.families.checkpoint import CheckpointHeader
from diffugen_generator.models.files import SAFE

_LARGEST: Final = 100_000_000
"""The largest header in bytes; safetensors itself refuses a larger one."""
_LENGTH: Final = 8
_POINTER: Final = b"version "
"""The first bytes of a Git LFS pointer. Read as a length, they would mean a header larger than any disk."""
_PICKLES: Final = (b"PK\x03\x04", b"\x80")
"""The first bytes of files of torch: a zip archive, or a pickle. A header can begin with the same bytes."""


_BROKEN: Final = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)
"""What reading a header raises that is not one of safetensors."""


class Head:
    """Keeps the first bytes of a file that is read in chunks, up to the end of its header."""

    def __init__(self, name: str) -> None:
        """Start empty for the file `name`. If the file is not safetensors, nothing is kept."""
        self._name = name
        self._kept = bytearray()

    def take(self, chunk: bytes) -> None:
        """Read the next chunk."""
        if len(self._kept) < self._wanted():
            self._kept += chunk

    def check(self, size: int) -> None:
        """Raise `ValueError` if the file, which has `size` bytes, is not complete; else do nothing."""
        if self._name.endswith(SAFE):
            _check(self._name, size, io.BytesIO(self._kept).read)

    def _wanted(self) -> int:
        if not self._name.endswith(SAFE):
            return 0
        if len(self._kept) < _LENGTH:
            return _LENGTH
        return _LENGTH + min(int.from_bytes(self._kept[:_LENGTH], "little"), _LARGEST)


def check_whole(folder: Path, names: Iterable[str]) -> None:
    """Raise `ValueError` if one of the files `names` in `folder` is a safetensors file that is not complete.

    Files of every kind are refused if they are pointers of Git LFS. Files that do not exist are not checked. The
    error's text continues a sentence about the model.
    """
    for name in sorted(names):
        path = folder / name
        if path.is_file():
            with path.open("rb") as stream:
                if name.endswith(SAFE):
                    _check(name, path.stat().st_size, stream.read)
                else:
                    _check_start(name, stream.read(_LENGTH))


Shapes = dict[str, tuple[int, ...]]
"""The shape of each tensor of a file, by name."""
STATED: Final = "shapes.json"
"""The shapes of the weights files of a folder that has only the settings of a remote model."""
METADATA: Final = "metadata.json"
"""The text in the headers of these files, beside the shapes."""


def read_header(read: Callable[[int, int], bytes]) -> CheckpointHeader:
    """Return the header of a safetensors file; raise `ValueError` if it cannot be read.

    `read` returns the bytes from an offset on, as many as are asked for.
    """
    length = int.from_bytes(read(0, _LENGTH), "little")
    if length > _LARGEST:
        raise ValueError("its header is too large")
    content = read(_LENGTH, length)
    try:
        header = json.loads(content)
        metadata = header.pop("__metadata__", None) or {}
        return CheckpointHeader(
            {str(name): tuple(int(side) for side in entry["shape"]) for name, entry in header.items()},
            {str(name): str(value) for name, value in metadata.items()},
        )
    except _BROKEN:
        raise ValueError("its header cannot be read") from None


def header_of(folder: Path, name: str) -> CheckpointHeader:
    """Return the header of a safetensors file, which may be only written down beside the settings of a remote model.

    Raises `ValueError` if it cannot be read.
    """
    if (folder / name).is_file():
        return _local(folder / name)
    shapes = json.loads((folder / STATED).read_bytes())[name]
    beside = json.loads((folder / METADATA).read_bytes())[name]
    return CheckpointHeader({each: tuple(shape) for each, shape in shapes.items()}, beside)


def shapes_of(folder: Path, names: Iterable[str]) -> dict[str, Shapes]:
    """Return the shapes of each component's tensors, by the component's folder.

    `names` are the weights files of a model. A component with pickled weights is left out. The headers of files that
    are not in `folder` are those that were written down when its settings were fetched.
    """
    stated: Mapping[str, Mapping[str, list[int]]] = {}
    if (folder / STATED).is_file():
        stated = json.loads((folder / STATED).read_bytes())
    found: dict[str, Shapes] = {}
    unknown = set()
    for name in sorted(names):
        component, path = name.partition("/")[0], folder / name
        if name.endswith(SAFE) and path.is_file():
            found.setdefault(component, {}).update(_local(path).shapes)
        elif name in stated:
            found.setdefault(component, {}).update({each: tuple(shape) for each, shape in stated[name].items()})
        elif not name.endswith(".json"):  # the index of a set in parts
            unknown.add(component)
    return {component: shapes for component, shapes in found.items() if component not in unknown}


def shapes_at(path: Path) -> Shapes:
    """Return the shapes in a safetensors file; raise `ValueError` if its header cannot be read."""
    return dict(_local(path).shapes)


def _local(path: Path) -> CheckpointHeader:
    with path.open("rb") as stream:

        def read(offset: int, count: int) -> bytes:
            stream.seek(offset)
            return stream.read(count)

        return read_header(read)


def _check(name: str, size: int, read: Callable[[int], bytes]) -> None:
    start = read(_LENGTH)
    _check_start(name, start)
    try:
        stated = _stated(start, read)
    except (struct.error, *_BROKEN):
        raise ValueError(unreadable(name, start)) from None
    if stated != size:
        raise ValueError(
            f"has a file {name} of {size:,} bytes whose header tells of {stated:,}: it was cut short or is broken; "
            "copy it again."
        )


def _check_start(name: str, start: bytes) -> None:
    if start == _POINTER:
        raise ValueError(f"has a pointer of Git LFS in place of {name}; fetch the file itself with `git lfs pull`.")


def unreadable(name: str, start: bytes) -> str:
    """Return what is wrong with the file `name` that begins with `start` and has no header: the end of a sentence."""
    if start.startswith(_PICKLES):
        return (
            f"has a file {name} that is a pickle and not safetensors, and may run code when loaded; save it as "
            "safetensors, or rename it to .ckpt and pin it with modelSHA256."
        )
    return f"has a file {name} whose header cannot be read: it is broken; copy it again."


def _stated(start: bytes, read: Callable[[int], bytes]) -> int:
    """Return how many bytes the file must have according to its header."""
    (length,) = struct.unpack("<Q", start)
    if length > _LARGEST:
        raise ValueError
    header = json.loads(read(length))
    ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    return _LENGTH + int(length) + max(ends, default=0)
