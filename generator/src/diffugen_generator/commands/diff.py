"""`diffugen diff`: what changed between two published revisions: samples, labels, counts and settings."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from diffugen_api.addresses import canonical
from diffugen_generator.publishing.reading import PublishedDataset
from diffugen_generator.results import REPEATED
from diffugen_generator.telemetry.reporter import Reporter

MOST_IDS = 1000
"""The most sample ids that one kind of change lists in JSON; the counts are always whole."""

_ABSENT = "(absent)"


@dataclass
class DiffResult:
    """The differences of a revision `b` from a revision `a`."""

    a: str
    b: str
    samples: dict[str, list[str]] = field(default_factory=dict)
    """Up to `MOST_IDS` sample ids of each kind of change: added, removed, accepted, rejected, relabeled, moved."""
    counts: Counter[str] = field(default_factory=Counter)
    """How many samples changed in each way."""
    equal: int = 0
    """Samples without a change."""
    classes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Objects of each class in `a` and in `b`."""
    settings: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """Fields of the spec that differ, with their values in `a` and in `b`."""

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.counts or self.settings)

    def row(self) -> dict[str, Any]:
        """Return the differences as JSON data."""
        return {
            "a": self.a,
            "b": self.b,
            "equal": self.equal,
            "counts": dict(self.counts),
            "samples": self.samples,
            "classes": {name: {"a": first, "b": second} for name, (first, second) in self.classes.items()},
            "settings": {name: {"a": first, "b": second} for name, (first, second) in self.settings.items()},
        }

    def add(self, change: str, sample_id: str) -> None:
        """Note a changed sample."""
        self.counts[change] += 1
        ids = self.samples.setdefault(change, [])
        if len(ids) < MOST_IDS:
            ids.append(sample_id)


CHANGES = {
    "added": "only in B",
    "removed": "only in A",
    "accepted": "rejected in A, accepted in B",
    "rejected": "accepted in A, rejected in B",
    "relabeled": "other objects",
    "moved": "another split",
}
"""The kinds of change, with what they mean."""


def diff(a: PublishedDataset, b: PublishedDataset, display: Reporter) -> DiffResult:
    """Compare two revisions; raise `Damaged` or a `StoreFailure`."""
    result = DiffResult(a.uri, b.uri)
    with display.task("comparing", "samples") as advance:
        former = {sample_id: state for sample_id, *state in _states(a)}
        done = 0
        for sample_id, accepted, split, objects in _states(b):
            done += 1
            advance(done, max(done, int(b.dataset["samples"]) + int(b.dataset["rejected"])))
            before = former.pop(sample_id, None)
            if before is None:
                result.add("added", sample_id)
                continue
            changes = []
            if before[0] != accepted:
                changes.append("accepted" if accepted else "rejected")
            if before[2] != objects:
                changes.append("relabeled")
            if before[1] != split and accepted and before[0]:
                changes.append("moved")
            for change in changes:
                result.add(change, sample_id)
            result.equal += not changes
    for sample_id in former:
        result.add("removed", sample_id)
    names = dict.fromkeys([*a.dataset["classes"], *b.dataset["classes"]])
    result.classes = {name: (_objects(a, name), _objects(b, name)) for name in names}
    one, other = dict(_leaves(a.dataset.get("spec", {}))), dict(_leaves(b.dataset.get("spec", {})))
    result.settings = {
        path: (one.get(path, _ABSENT), other.get(path, _ABSENT))
        for path in sorted({*one, *other})
        if one.get(path, _ABSENT) != other.get(path, _ABSENT)
    }
    return result


def _states(published: PublishedDataset) -> Iterator[tuple[str, bool, str, bytes]]:
    """Yield id, acceptance, split, and a digest of the objects of each sample.

    A repeated file of `diffugen label` has the id of the first one, and is left out.
    """
    for row in published.rows():
        sample = published.sample_of(row)
        if sample.verdict.reason == REPEATED:
            continue
        objects = [each.row() for each in sample.verdict.instances]
        digest = hashlib.blake2b(canonical(objects), digest_size=12).digest()
        yield sample.sample.id, sample.verdict.accepted, sample.split, digest


def _objects(published: PublishedDataset, name: str) -> int:
    return sum(published.dataset["classes"].get(name, {}).values())


def _leaves(value: Any, path: str = "spec") -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each part of a spec that has no parts."""
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _leaves(part, f"{path}.{name}")
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        for number, part in enumerate(value):
            name = part.get("name", number) if isinstance(part, dict) else number
            yield from _leaves(part, f"{path}[{name}]")
    else:
        yield path, value
