"""How much of a stage is done, and how fast it proceeds.

Completed indexes are the lower bound: they are right even if no pod can be asked. The progress that running pods report
for their shards is added. A pod that restarts counts from zero again, so the reported number never decreases within a
run, nor from one run of a revision to the next, unless somebody deleted samples from the store.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil

from diffugen_api.contract import MAX_SHARDS
from diffugen_api.plan import samples_per_shard
from diffugen_api.v1alpha1 import LabeledDatasetSpec

WINDOW_SECONDS = 60.0
"""The pace is measured over this time: long enough to be smooth, short enough to follow changes."""
_SPAN = re.compile(r"[0-9]{1,9}(-[0-9]{1,9})?")
_LEAST_GAP_SECONDS = 0.5
"""Measurements closer together than this are ignored."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The progress that a pod reports for its shard, in samples."""

    total: int
    done: int


@dataclass(frozen=True, slots=True)
class Cut:
    """How a stage's missing samples were cut into shards; all are full but the last."""

    missing: int
    shards: int
    size: int

    @classmethod
    def of(cls, spec: LabeledDatasetSpec, missing: int, shards: int) -> Cut:
        """Return the cut that the plan step made.

        `run.samplesPerShard` may have been edited since; the size is then derived from the number
        of shards.
        """
        size = samples_per_shard(spec, missing)
        if shards and ceil(missing / size) != shards:
            size = ceil(missing / shards)
        return cls(missing, shards, size)

    def samples(self, indexes: Iterable[range]) -> int:
        """Return how many samples the given shards hold."""
        spans = list(indexes)
        count = sum(len(span) for span in spans)
        last = any(self.shards - 1 in span for span in spans)
        short = self.size * self.shards - self.missing
        return max(0, count * self.size - (short if last else 0))


def parse_indexes(text: str) -> list[range]:
    """Read `completedIndexes`: "0,3-5" is the ranges of 0 and of 3 to 5; other text is ignored."""
    spans = []
    for part in filter(_SPAN.fullmatch, text.split(",")):
        first, _, last = part.partition("-")
        spans.append(range(int(first), min(int(last or first), MAX_SHARDS - 1) + 1))
    return spans


def samples_done(cut: Cut, completed: str, running: Iterable[Shard]) -> int:
    """Return how many of the missing samples are done."""
    done = cut.samples(parse_indexes(completed)) + sum(min(shard.done, shard.total) for shard in running)
    return min(done, cut.missing)


@dataclass(slots=True)
class Meter:
    """Measures a pace from numbers of finished samples and their times."""

    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def record(self, now: float, done: int) -> None:
        """Record how many samples are done at `now` (seconds of a monotonic clock)."""
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        if self._seen and now - self._seen[-1][0] < _LEAST_GAP_SECONDS:
            return
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW_SECONDS:
            self._seen.popleft()

    def pace(self) -> float | None:
        """Return samples in a second, or None before there are two measurements."""
        if len(self._seen) < 2:
            return None
        (start, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - start) if end > start and last > first else None


@dataclass(frozen=True, slots=True)
class Pace:
    """Samples done in a second, over the last minute."""

    whole: float | None = None
    """Of the whole run; None if it is not known."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Of each stage whose pace is known."""


@dataclass(slots=True)
class Meters:
    """Measures a run's pace, and that of each of its stages."""

    _whole: Meter = field(default_factory=Meter)
    _stages: dict[str, Meter] = field(default_factory=dict)

    def record(self, now: float, done: Mapping[str, int]) -> None:
        """Record how many samples of each stage are done at `now`."""
        self._whole.record(now, sum(done.values()))
        for stage, samples in done.items():
            self._stages.setdefault(stage, Meter()).record(now, samples)

    def pace(self) -> Pace:
        """Return the pace of the run and of its stages, if known."""
        paces = ((stage, meter.pace()) for stage, meter in self._stages.items())
        return Pace(self._whole.pace(), {stage: pace for stage, pace in paces if pace is not None})


def eta_seconds(remaining: int, pace: float | None) -> int | None:
    """Return the seconds left, or None if the pace is not known."""
    return ceil(remaining / pace) if pace else None
