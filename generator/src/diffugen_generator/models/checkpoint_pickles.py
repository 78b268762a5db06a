"""Reads names and shapes of the tensors in a `.ckpt` file, without torch and without running the code of its pickle.

Such a file is a zip archive of torch (since 1.6). Its `data.pkl` names the tensors; their numbers are in other files of
the archive, which are not read here.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, Final

from diffugen_generator.families.checkpoint import CheckpointHeader

_BROKEN: Final = (
    AttributeError, EOFError, LookupError, OverflowError, RecursionError, TypeError, ValueError, pickle.UnpicklingError
)  # fmt: skip
"""What a pickle that is cut short or wrong raises."""
_LARGEST: Final = 64 << 20
"""The largest `data.pkl` in bytes; that of Stable Diffusion XL with its averages has less than 2 MB."""


def header_of_pickle(path: Path) -> CheckpointHeader:
    """Return what a `.ckpt` file states about its tensors; raise `ValueError`, whose text ends a sentence about it.

    A file whose pickle names anything but tensors is refused, as torch's `weights_only` loader does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(each for each in archive.namelist() if each.endswith("/data.pkl"))
            if archive.getinfo(name).file_size > _LARGEST:
                raise ValueError(f"has a pickle of more than {_LARGEST >> 20} MB; save it as safetensors.")
            with archive.open(name) as stream:
                content = _loaded(stream)
    except (zipfile.BadZipFile, StopIteration):
        raise ValueError(
            "is no checkpoint of torch 1.6 or later, or it was cut short; save it as safetensors."
        ) from None
    except (zlib.error, RuntimeError):  # encrypted, or compressed in another way than zip files of torch are
        raise ValueError("has an archive that cannot be read: it is broken; copy it again.") from None
    table = content.get("state_dict", content) if isinstance(content, dict) else {}
    return CheckpointHeader({str(key): each.sides for key, each in table.items() if isinstance(each, _Tensor)})


def _loaded(stream: IO[bytes]) -> object:
    try:
        return _Shapes(stream).load()
    except _ForeignError as error:
        raise ValueError(f"is a pickle that names {error}, which could run code; save it as safetensors.") from None
    except _BROKEN:
        raise ValueError("has a pickle that cannot be read: it is broken; copy it again.") from None


class _ForeignError(Exception):
    """A pickle names something else than tensors; the argument is the name."""


class _Tensor:
    """A tensor in a pickle: its shape alone."""

    def __init__(self, _storage: object, _offset: object, size: tuple[int, ...], *_: object) -> None:
        self.sides = tuple(int(side) for side in size)


def _parameter(data: _Tensor, *_: object) -> _Tensor:
    return data


class _Shapes(pickle.Unpickler):
    """Knows dictionaries and tensors, and refuses everything else."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or a function of torch."""
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch", "Size"): tuple,
        }
        if (module, name) in known:
            return known[module, name]
        if module in {"torch", "torch.storage"} and name.endswith("Storage"):
            return name  # `persistent_load` gets it; a pickle cannot call a string
        raise _ForeignError(f"{module}.{name}")

    def persistent_load(self, _pid: object) -> None:
        """Return nothing: the numbers are in other files."""
