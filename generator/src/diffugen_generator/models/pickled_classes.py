"""Reads the classes of a pickled detector. Every class in the pickle is replaced by an empty one, so no code runs."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import IO, Any


def yolo_classes(file: Path) -> tuple[str, ...]:
    """Return the classes of an Ultralytics segmentation model; raise `ValueError` if `file` is not one.

    No code of the file is run.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            inside = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(inside) as stream:
                reader = _Inert(stream)
                content = reader.load()
        model = content["model"] if content["model"] is not None else content["ema"]
        names = model.__dict__["names"]
        found = tuple(str(names[key]) for key in sorted(names))
    except (zipfile.BadZipFile, StopIteration, pickle.UnpicklingError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"is no Ultralytics model ({type(error).__name__}).") from None
    if "SegmentationModel" not in type(model).__name__:
        raise ValueError(f"is a {type(model).__name__}: it finds no masks; give a segmentation model (…-seg.pt).")
    return found


class _Inert(pickle.Unpickler):
    """Reads a pickle's structure. Every class and function in it becomes an empty class of that name."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self._made: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return an empty class; dictionaries stay dictionaries."""
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        return self._made.setdefault(f"{module}.{name}", type(name, (_Empty,), {}))

    def persistent_load(self, pid: object) -> None:
        """Return nothing: the tensors are in other files."""


class _Empty(dict[Any, Any]):
    """Accepts every way in which a pickle can build it."""

    def __new__(cls, *_: object, **__: object) -> _Empty:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(key): value for key, value in state.items()})

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def append(self, _: object) -> None:
        """Take an item of a list."""

    def extend(self, _: object) -> None:
        """Take items of a list."""

    def add(self, _: object) -> None:
        """Take an item of a set."""
