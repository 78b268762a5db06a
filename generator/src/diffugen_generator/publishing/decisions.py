"""What each part of a publication in shards must know of all samples, found together by the shards.

Splits and near duplicates follow from all accepted samples. So each label is read before any file is written, and a
short line for each accepted sample goes to the store. The work is divided like the samples: a pod makes the decisions
on its own part, then those on parts that no other pod has claimed. In the end it makes what is still missing itself, so
it waits for no other pod, and a pod that was killed does no harm. The decisions follow from labels alone: two pods that
make the same ones write the same bytes.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

from diffugen_api.samples import Sample
from diffugen_generator.failures import Damaged, Incomplete
from diffugen_generator.publishing.labeled_samples import LabeledSample, Read, read_ahead
from diffugen_generator.publishing.parts import Parts
from diffugen_generator.publishing.placing import Accepted
from diffugen_generator.publishing.published import lines_of
from diffugen_generator.publishing.stopping import check_stop
from diffugen_generator.samples.documents import checked, discard

Reads = Callable[[], Iterator[tuple[Sample, Read]]]
"""Starts a pass over all samples of the dataset, in the spec's order."""

_text = json.JSONEncoder(separators=(",", ":")).encode


class Decision(NamedTuple):
    """A sample that its own label accepts."""

    accepted: Accepted
    objects: int
    """Its objects and its regions to ignore."""


def decide(parts: Parts, own: int, reads: Reads, stop: Callable[[], bool]) -> None:
    """Make the decisions that are not in the store, those on part `own` first; raise `Incomplete` or `Interrupted`."""
    count = parts.division.count
    _decide(parts, range(own, count), reads, stop, claim=True)
    _decide(parts, range(own), reads, stop, claim=True)
    _decide(parts, range(count), reads, stop, claim=False)


def _decide(parts: Parts, span: range, reads: Reads, stop: Callable[[], bool], *, claim: bool) -> None:
    store, division = parts.store, parts.division
    if all(store.exists(parts.decisions(number)) for number in span):
        return
    stream = islice(reads(), division.first(span.start), None)
    for number in span:
        part = islice(stream, division.length(number))
        mine = not store.exists(parts.decisions(number))
        if mine and claim:
            mine = store.replace(parts.claim(number), b"", "")
        if not mine:
            deque(part, maxlen=0)
            continue
        lines = zlib.compressobj(6, zlib.DEFLATED, wbits=31)
        data = [lines.compress(_line(each)) for each in _decisions(parts, part, stop)]
        store.write(parts.decisions(number), b"".join(data) + lines.flush(), "application/gzip")


def _decisions(parts: Parts, part: Iterable[tuple[Sample, Read]], stop: Callable[[], bool]) -> Iterator[Decision]:
    damaged: list[tuple[str, Damaged]] = []
    for sample in read_ahead(read for _, read in part):
        if sample.damaged is not None:
            discard(parts.store, sample.damaged)
            damaged.append((sample.stage, sample.damaged))
        elif sample.verdict.accepted:
            yield decision_on(sample)
        check_stop(stop)
    if damaged:
        stage, first = damaged[0]
        more = f" (and {len(damaged) - 1:,} more)" if len(damaged) > 1 else ""
        raise Incomplete(f"stage {stage!r}: {first.key} is damaged ({first.why}){more}; plan again")


def decision_on(sample: LabeledSample) -> Decision:
    """Return the decision on a sample that its label accepts."""
    return Decision(sample.as_accepted(), len(sample.verdict.instances) + len(sample.label.ignored))


def _line(decision: Decision) -> bytes:
    return f"{_text([*decision.accepted, decision.objects])}\n".encode()


def decisions_of(parts: Parts, span: range) -> Iterator[Decision]:
    """Yield the decisions on the parts of `span`, in the order of the samples; raise `Missing` or `Damaged`."""
    for number in span:
        key = parts.decisions(number)
        for line in lines_of(key, parts.store.stream(key)):
            yield checked(key, partial(_decision, line))


def _decision(line: bytes) -> Decision:
    try:
        sample_id, root, image_hash, objects = json.loads(line)
        return Decision(Accepted(str(sample_id), str(root), str(image_hash)), int(objects))
    except TypeError as error:
        raise ValueError(f"a line is not a decision: {error}") from error
