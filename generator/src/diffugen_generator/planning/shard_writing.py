"""Splits the incomplete samples of a stage into shards and writes each in a thread as soon as it is full."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Protocol

from diffugen_api import layout
from diffugen_api.plan import Sample
from diffugen_generator.bounded_pool import BoundedPool
from diffugen_generator.samples.shards import CONTENT_TYPE, Need, ShardHeader, ShardRow, encode_shard
from diffugen_generator.store.protocol import Store

_WRITES = 8
"""Parallel writes of shards."""


class Sink(Protocol):
    """Receives the incomplete samples of a stage."""

    def add(self, sample: Sample, need: Need) -> None:
        """Receive a sample."""

    def finish(self) -> int:
        """Return the number of shards, once all are stored."""
        ...


class ShardCounter:
    """Counts the shards that a `ShardWriter` would write."""

    def __init__(self, size: int) -> None:
        """Count shards of `size` samples."""
        self._size = size
        self._rows = 0

    def add(self, sample: Sample, need: Need) -> None:
        """Count a sample."""
        self._rows += 1

    def finish(self) -> int:
        """Return the number of shards."""
        return -(-self._rows // self._size)


class ShardWriter:
    """Writes shards.

    A full shard has samples with one `Need` only. The remaining rows are put together at the end, those to draw
    first. At most 16 shards are in memory, also with a slow store.
    """

    def __init__(self, store: Store, header: ShardHeader, size: int) -> None:
        """Write shards of `size` samples; each has `header` with its own index."""
        self._store = store
        self._header = header
        self._size = size
        self._rows: dict[Need, list[bytes]] = {need: [] for need in Need}
        self._pool = BoundedPool(_WRITES)
        self._shards = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)

    def add(self, sample: Sample, need: Need) -> None:
        """Put a sample into a shard; raise the failure of an earlier write."""
        rows = self._rows[need]
        rows.append(ShardRow(sample, need).to_line())
        if len(rows) == self._size:
            self._write(rows)
            self._rows[need] = []

    def finish(self) -> int:
        """Write the remaining rows, wait until every shard is stored, and return the number of shards."""
        rest = [row for need in Need for row in self._rows[need]]
        for start in range(0, len(rest), self._size):
            self._write(rest[start : start + self._size])
        self._pool.finish()
        return self._shards

    def _write(self, rows: list[bytes]) -> None:
        self._pool.submit(self._write_now, self._shards, rows)
        self._shards += 1

    def _write_now(self, index: int, rows: list[bytes]) -> None:
        header = replace(self._header, index=index)
        key = layout.shard(header.revision, header.stage, index)
        self._store.write(key, encode_shard(header, rows), CONTENT_TYPE)
