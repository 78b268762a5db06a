"""Values come back in order, whether they stayed in memory or went to the file."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from diffugen_generator.publishing.spool import Spool


@dataclass(frozen=True)
class Value:
    number: int
    text: str


def _number_of(value: Value) -> int:
    return value.number


VALUES = [Value(number, f"value {number}") for number in range(200)]


@pytest.mark.parametrize("in_memory", [0, 1, 640, 100_000])
def test_values_come_back_in_their_order_as_often_as_they_are_read(in_memory: int) -> None:
    spool: Spool[Value]
    with Spool(Value, size_of=_number_of, in_memory=in_memory) as spool:
        for value in VALUES:
            spool.add(value)

        assert list(spool) == VALUES
        assert list(spool) == VALUES


def test_memory_is_bounded_by_the_sizes_of_the_values() -> None:
    spool: Spool[Value]
    with Spool(Value, size_of=_number_of, in_memory=1000) as spool:
        for value in VALUES:
            spool.add(value)
        same = [before is after for before, after in zip(VALUES, spool, strict=True)]

    kept = same.index(False)
    assert not any(same[kept:]), "what was read from the file is a copy"
    assert sum(range(kept - 1)) < 1000 <= sum(range(kept))
