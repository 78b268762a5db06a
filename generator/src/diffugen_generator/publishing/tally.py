"""Counts of a dataset, as `dataset.json`, the dataset card and the termination message give them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from diffugen_generator.publishing.entries import Entry
from diffugen_generator.publishing.release import Release


@dataclass
class Tally:
    """Counts entries as they pass."""

    release: Release
    accepted: Counter[str] = field(default_factory=Counter)
    """By stage."""
    rejected: Counter[str] = field(default_factory=Counter)
    """By stage."""
    reasons: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    """Objects that do not stand, by reason; those of rejected pictures too."""
    pictures: Counter[str] = field(default_factory=Counter)
    """Accepted, by split."""
    instances: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Of accepted pictures, by class and split."""

    def add(self, entry: Entry) -> None:
        """Count an entry."""
        self.dropped.update(entry.verdict.dropped)
        if not entry.verdict.accepted:
            self.rejected[entry.stage] += 1
            self.reasons[entry.verdict.reason] += 1
            return
        self.accepted[entry.stage] += 1
        self.pictures[entry.split] += 1
        self.instances.update((instance.class_name, entry.split) for instance in entry.verdict.instances)

    def finish(self) -> None:
        """Nothing is written here: others ask."""

    def of_class(self, name: str) -> int:
        """Return how many objects of a class there are."""
        return sum(self.instances[name, split] for split in self.release.splits)

    def row(self) -> dict[str, Any]:
        """Return the counts for `dataset.json`."""
        splits = self.release.splits
        return {
            "samples": self.accepted.total(),
            "rejected": self.rejected.total(),
            "instances": self.instances.total(),
            "acceptedByStage": dict(self.accepted),
            "rejectedByStage": dict(self.rejected),
            "rejectedByReason": dict(self.reasons),
            "droppedInstances": dict(self.dropped),
            "splits": {split: self.pictures[split] for split in splits},
            "classes": {
                name: {split: self.instances[name, split] for split in splits} for name in self.release.class_ids
            },
        }
