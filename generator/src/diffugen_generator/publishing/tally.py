"""Counts of a dataset, for `dataset.json`, the dataset card and the termination message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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

    def all(self) -> int:
        """Return the number of samples, accepted or not."""
        return self.accepted.total() + self.rejected.total()

    def of_class(self, name: str) -> int:
        """Return how many objects of a class there are."""
        return sum(self.instances[name, split] for split in self.release.splits)

    def part(self) -> dict[str, Any]:
        """Return the counts of a part of the samples, as JSON data for `join`."""
        return {
            **{name: dict(counts) for name, counts in self._by_name().items()},
            "leftOut": self.left_out,
            "instances": [[*of, count] for of, count in self.instances.items()],
        }

    def join(self, part: Mapping[str, Any]) -> None:
        """Add the counts of a part, in the order of the samples."""
        for name, counts in self._by_name().items():
            counts.update(part[name])
        self.left_out += int(part["leftOut"])
        self.instances.update({(str(name), str(split)): int(count) for name, split, count in part["instances"]})

    def _by_name(self) -> dict[str, Counter[str]]:
        return {
            "accepted": self.accepted,
            "rejected": self.rejected,
            "reasons": self.reasons,
            "dropped": self.dropped,
            "images": self.images,
        }

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
