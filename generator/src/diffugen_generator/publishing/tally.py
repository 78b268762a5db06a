"""Counts of a dataset, for `dataset.json`, the dataset card and the termination message."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.release import Release


@dataclass
class Tally:
    """Counts samples as they are published."""

    release: Release
    accepted: Counter[str] = field(default_factory=Counter)
    """By stage."""
    rejected: Counter[str] = field(default_factory=Counter)
    """By stage."""
    reasons: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    """Rejected objects by reason, those in rejected images included."""
    left_out: int = 0
    """Objects in rejected images that are not rejected themselves."""
    images: Counter[str] = field(default_factory=Counter)
    """Accepted, by split."""
    instances: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Objects in accepted images, by class and split."""

    def add(self, sample: LabeledSample) -> None:
        """Count a sample, accepted or not."""
        self.dropped.update(sample.verdict.dropped)
        if not sample.verdict.accepted:
            self.rejected[sample.stage] += 1
            self.reasons[sample.verdict.reason] += 1
            self.left_out += len(sample.verdict.instances)
            return
        self.accepted[sample.stage] += 1
        self.images[sample.split] += 1
        self.instances.update((instance.class_name, sample.split) for instance in sample.verdict.instances)

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
            "splits": {split: self.images[split] for split in splits},
            "classes": {
                name: {split: self.instances[name, split] for split in splits} for name in self.release.class_ids
            },
        }
