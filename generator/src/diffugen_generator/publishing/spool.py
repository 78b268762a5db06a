"""Keeps a stream of values in a local file, to be read again: a second pass then costs no requests to the store.

The file is temporary and has no name that another process could open, so reading it back with pickle is safe.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from tempfile import TemporaryFile
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")

_BUFFER = 1 << 20


class Spool(Generic[T]):
    """Values in a temporary file, in the order of `add`; about 1 kB a sample with a label."""

    def __init__(self) -> None:
        """Begin an empty file."""
        self._file = TemporaryFile(prefix="diffugen-", buffering=_BUFFER)  # noqa: SIM115 - closed by __exit__
        self._count = 0

    def add(self, value: T) -> None:
        """Append a value; it must be picklable."""
        pickle.dump(value, self._file, pickle.HIGHEST_PROTOCOL)
        self._count += 1

    def __iter__(self) -> Iterator[T]:
        """Yield the values; nothing may be added meanwhile."""
        self._file.seek(0)
        for _ in range(self._count):
            yield pickle.load(self._file)  # noqa: S301 - this process wrote it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
