"""Keeps a stream of values to be read again: a second pass then costs no requests to the store.

The first values stay in memory, up to a bound; all others go to a local file. The file is temporary and has no name
that another process could open, so reading it back with pickle is safe.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable, Iterator
from dataclasses import fields
from operator import attrgetter
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

_BUFFER = 1 << 20
_TOGETHER = 64
"""Values that are pickled as one: what they share, such as their classes and equal settings, is written once."""


class Spool(Generic[T]):
    """Values in the order of `add`; in the file, a sample with a label takes about 1 kB."""

    def __init__(self, *parts: type, size_of: Callable[[T], int], in_memory: int) -> None:
        """Begin without values.

        Args:
            parts: dataclasses in the values; they are pickled faster if they are named.
            size_of: the bytes that a value takes in memory, roughly.
            in_memory: the most bytes of values that stay in memory.
        """
        self._file = TemporaryFile(prefix="diffugen-", buffering=_BUFFER)  # noqa: SIM115 - closed by __exit__
        self._reducers: dict[type, Callable[[Any], Any]] = {part: _reducer(part) for part in parts}
        self._size_of = size_of
        self._memory_left = in_memory
        self._first: list[T] = []
        self._last: list[T] = []
        self._count = 0

    def add(self, value: T) -> None:
        """Append a value; it must be picklable."""
        if self._memory_left > 0:
            self._memory_left -= self._size_of(value)
            self._first.append(value)
            return
        self._last.append(value)
        if len(self._last) == _TOGETHER:
            self._write()

    def __iter__(self) -> Iterator[T]:
        """Yield the values; nothing may be added meanwhile."""
        yield from self._first
        if self._last:
            self._write()
        self._file.seek(0)
        for _ in range(self._count):
            yield from pickle.load(self._file)  # noqa: S301 - this process wrote it

    def _write(self) -> None:
        pickler = pickle.Pickler(self._file, pickle.HIGHEST_PROTOCOL)
        pickler.dispatch_table = {**copyreg.dispatch_table, **self._reducers}
        pickler.dump(self._last)
        self._last = []
        self._count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _reducer(part: type) -> Callable[[Any], tuple[type, tuple[Any, ...]]]:
    """Return how a dataclass is pickled: by its fields, from which it is made anew."""
    names = [each.name for each in fields(part)]
    values = attrgetter(*names)
    return lambda value: (part, values(value) if len(names) > 1 else (values(value),))
