"""Reads the tensors of small files, without torch and without running the code of a pickle.

Safetensors are JSON and numbers. A `.pt` file is a pickle. The unpickler here knows only dictionaries and tensors, as
`weights_only` of torch does, and refuses everything else.

A small file can ask for much work: objects that contain another one twice, again and again, or tensors whose strides
are 0. So the operations of a pickle, the elements of its content and the bytes of its tensors are limited, and keys are
plain values, because hashing or printing a nested one takes exponential time.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import deserialize

LARGEST: Final = 64 << 20
"""The largest file in bytes; an embedding of 75 vectors for Stable Diffusion XL has 1 MB."""

MOST_OPERATIONS: Final = 10_000
"""The most operations of a pickle; an embedding of A1111 has some 300."""
MOST_ELEMENTS: Final = 10_000
"""The most values in the content of a file, counted where they are used."""
MOST_DEPTH: Final = 16
"""The deepest nesting of dictionaries."""
MOST_HEADER: Final = 1 << 20
"""The largest header of a safetensors file in bytes."""

_MOST_NAME: Final = 100

_SAFE: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_STORAGES: Final = {"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "<u2"}
_HASHING: Final = frozenset({"ADDITEMS", "DICT", "EMPTY_SET", "FROZENSET", "INST", "OBJ"})
"""Operations that torch does not write; they hash any object."""
_LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
"""MAGIC_NUMBER in torch/serialization.py: the first number in files of torch before 1.6."""


def read_tensors(path: Path) -> Any:
    """Return the content of a `.safetensors`, `.pt` or `.bin` file, with tensors as numpy arrays.

    Raises `ValueError` if the file cannot be read, or if its pickle holds more than tensors. The error's text continues
    a sentence about the file.
    """
    if path.stat().st_size > LARGEST:
        raise ValueError(f"has more than {LARGEST >> 20} MB, so it is no embedding; name another file")
    data = path.read_bytes()
    try:
        if zipfile.is_zipfile(io.BytesIO(data)):
            return _settled(_zipped(data))
        if data[:1] == b"\x80":  # PROTO: every pickle of torch begins with it
            return _settled(_legacy(data))
        return _safetensors(data)
    except _TooMuchError:
        raise ValueError(
            f"holds more than an embedding does (at most {MOST_ELEMENTS:,} values, {MOST_DEPTH} deep, and "
            f"{LARGEST >> 20} MB of numbers); name another file"
        ) from None
    except pickle.UnpicklingError as error:
        raise ValueError(f"is a pickle that {error}, which could run code; save it as safetensors") from None
    except Exception:  # noqa: BLE001 - zipfile, pickle and struct each raise many types
        raise ValueError("cannot be read; give a whole .safetensors or .pt file") from None


class _TooMuchError(ValueError):
    """A file that asks for more work than an embedding does."""


def _safetensors(data: bytes) -> dict[str, NDArray[Any]]:
    if MOST_HEADER < int.from_bytes(data[:8], "little") <= len(data):  # a longer one is an error of the reader
        raise _TooMuchError
    # `safetensors.numpy` does not know bfloat16, so the arrays are made here
    return {
        name: _array(bytes(entry["data"]), _SAFE[entry["dtype"]], entry["dtype"] == "BF16").reshape(entry["shape"])
        for name, entry in deserialize(data)  # type: ignore[no-untyped-call]  # has no types
    }


def _array(data: bytes, kind: str, bfloat: bool) -> NDArray[Any]:
    numbers = np.frombuffer(data, kind)
    return (numbers.astype(np.uint32) << 16).view(np.float32) if bfloat else numbers


@dataclass(frozen=True, slots=True)
class _Storage:
    kind: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor that the pickle names; its numbers may be read later."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    file: dict[str, bytes]

    @property
    def bytes(self) -> int:
        """The size of the tensor; with strides of 0 it is not that of its storage."""
        return math.prod(self.size) * np.dtype(_STORAGES[self.storage.kind]).itemsize

    def array(self) -> NDArray[Any]:
        """Return the numbers."""
        kind = _STORAGES[self.storage.kind]
        numbers = _array(self.file[self.storage.key], kind, self.storage.kind == "BFloat16Storage")
        if min((self.offset, *self.size, *self.stride)) < 0 or len(self.size) != len(self.stride):
            raise ValueError
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if 0 in self.size or last >= len(numbers):
            raise ValueError
        steps = [step * numbers.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.size, steps).copy()


def _rebuilt(
    file: dict[str, bytes], storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> _View:
    """Replace torch._utils._rebuild_tensor_v2."""
    view = _View(storage, offset, tuple(size), tuple(stride), file)
    numbers = (view.offset, *view.size, *view.stride)
    if not isinstance(storage, _Storage) or any(type(number) is not int for number in numbers):
        raise ValueError
    if max(numbers) > LARGEST:
        raise _TooMuchError
    return view


def _same(data: _View, *_: Any) -> _View:
    """Replace torch._utils._rebuild_parameter: return the parameter's tensor."""
    return data


def _plain(key: object) -> object:
    """Return a key that is a plain value; raise `ValueError` for any other."""
    if key is not None and type(key) not in {str, int, bool, float}:
        raise ValueError
    return key


def _ordered(items: Iterable[tuple[object, object]] = ()) -> OrderedDict[object, object]:
    return OrderedDict((_plain(key), value) for key, value in items)


class _Unpickler(pickle._Unpickler):
    """The unpickler in Python, since that in C has no place to look at keys."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch}

    def __init__(self, stream: io.BytesIO, file: dict[str, bytes]) -> None:
        super().__init__(stream)
        self._stream = stream
        self._file = file
        self.storages: dict[str, _Storage] = {}

    def load(self) -> Any:
        """Return the content of the next pickle; raise `ValueError` if it has other operations than those of torch."""
        begin = self._stream.tell()
        for count, (operation, _, _) in enumerate(pickletools.genops(self._stream), start=1):
            if count > MOST_OPERATIONS:
                raise _TooMuchError
            if operation.name in _HASHING:
                raise ValueError
        self._stream.seek(begin)
        return super().load()

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][_plain(key)] = value

    def _set_items(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(zip(map(_plain, items[::2]), items[1::2], strict=True))

    def _build(self) -> None:
        self.stack.pop()
        if not isinstance(self.stack[-1], OrderedDict):  # torch keeps versions of modules there
            raise pickle.UnpicklingError("changes what reads it")

    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _ordered
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return partial(_rebuilt, self._file)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _same
        if module == "torch" and name in _STORAGES:
            return name  # `persistent_load` reads it; a pickle cannot call a string
        if (module, name) == ("torch", "Size"):
            return tuple
        raise pickle.UnpicklingError(f"names {f'{module}.{name}'[:_MOST_NAME]}")

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key, _, count, *_ = pid
        return self.storages.setdefault(str(_plain(key)), _Storage(str(_plain(kind)), str(key), int(count)))


def _zipped(data: bytes) -> Any:
    file: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
            raise ValueError
        (listing,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = listing.removesuffix("data.pkl") + "data/"
        file |= {n.removeprefix(folder): archive.read(n) for n in archive.namelist() if n.startswith(folder)}
        return _Unpickler(io.BytesIO(archive.read(listing)), file).load()


def _legacy(data: bytes) -> Any:
    file: dict[str, bytes] = {}
    stream = io.BytesIO(data)
    if _Unpickler(stream, file).load() != _LEGACY_MAGIC:
        raise ValueError
    for _ in ("protocol", "machine"):
        _Unpickler(stream, file).load()
    main = _Unpickler(stream, file)
    content = main.load()
    for key in _Unpickler(stream, file).load():
        (count,) = struct.unpack("<q", stream.read(8))
        size = count * np.dtype(_STORAGES[main.storages[str(key)].kind]).itemsize
        file[str(_plain(key))] = stream.read(size)
    return content


def _settled(content: Any) -> Any:
    """Return a pickle's content with its tensors as numpy arrays; raise `_TooMuchError` if it is large."""
    return _Settling().of(content)


class _Settling:
    """Counts what it returns, because a pickle can use one object many times."""

    def __init__(self) -> None:
        self._elements = 0
        self._bytes = 0

    def of(self, content: Any, depth: int = 0) -> Any:
        self._elements += 1
        if self._elements > MOST_ELEMENTS or depth > MOST_DEPTH:
            raise _TooMuchError
        if isinstance(content, _View):
            self._bytes += content.bytes
            if self._bytes > LARGEST:
                raise _TooMuchError
            return content.array()
        if isinstance(content, dict):
            return {name: self.of(value, depth + 1) for name, value in content.items()}
        return content
