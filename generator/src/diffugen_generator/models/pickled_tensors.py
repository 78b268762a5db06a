"""Reads the tensors of small files, without torch and without running the code of a pickle.

Safetensors are JSON and numbers. A `.pt` file is a pickle. The unpickler here knows only dictionaries and tensors, as
`weights_only` of torch does, and refuses everything else.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import deserialize

LARGEST: Final = 64 << 20
"""The largest file in bytes; an embedding of 75 vectors for Stable Diffusion XL has 1 MB."""

_SAFE: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_STORAGES: Final = {"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "<u2"}
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
    except pickle.UnpicklingError as error:
        raise ValueError(f"is a pickle that {error}, which could run code; save it as safetensors") from None
    except Exception:  # noqa: BLE001 - zipfile, pickle and struct each raise many types
        raise ValueError("cannot be read; give a whole .safetensors or .pt file") from None


def _safetensors(data: bytes) -> dict[str, NDArray[Any]]:
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

    def array(self) -> NDArray[Any]:
        kind = _STORAGES[self.storage.kind]
        numbers = _array(self.file[self.storage.key], kind, self.storage.kind == "BFloat16Storage")
        if min((self.offset, *self.size, *self.stride)) < 0 or len(self.size) != len(self.stride):
            raise ValueError
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if 0 in self.size or last >= len(numbers):
            raise ValueError
        steps = [step * numbers.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.size, steps).copy()


class _Rebuild:
    """Replaces torch._utils._rebuild_tensor_v2. It has no attributes, so that no pickle can change it."""

    __slots__ = ("_file",)
    _file: dict[str, bytes]

    def __init__(self, file: dict[str, bytes]) -> None:
        object.__setattr__(self, "_file", file)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError("changes what reads it")

    def __call__(
        self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
    ) -> _View:
        return _View(storage, int(offset), tuple(size), tuple(stride), self._file)


class _Same:
    """Replaces torch._utils._rebuild_parameter: returns the parameter's tensor."""

    __slots__ = ()

    def __call__(self, data: _View, *_: Any) -> _View:
        return data


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BufferedIOBase, file: dict[str, bytes]) -> None:
        super().__init__(stream)
        self._file = file
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuild(self._file)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _Same()
        if module == "torch" and name in _STORAGES:
            return name  # `persistent_load` reads it; a pickle cannot call a string
        if (module, name) == ("torch", "Size"):
            return tuple
        raise pickle.UnpicklingError(f"names {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key, _, count, *_ = pid
        return self.storages.setdefault(str(key), _Storage(str(kind), str(key), int(count)))


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
        file[str(key)] = stream.read(size)
    return content


def _settled(content: Any) -> Any:
    """Return a pickle's content with its tensors as numpy arrays."""
    if isinstance(content, _View):
        return content.array()
    if isinstance(content, dict):
        return {name: _settled(value) for name, value in content.items()}
    return content
