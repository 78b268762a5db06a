"""The report's index: for each sample, what the page filters by and counts, in columns of small integers.

A chunk has the rows of `ROWS` samples, about 40 bytes each without ids and prompts. The page loads all chunks, and
reads everything else of a sample (its masks, its attention maps, its thumbnail) only where it shows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.report.data_files import packed
from diffugen_generator.samples.labels import Instance

ROWS = 4096
"""Samples in a chunk."""
NO_SPLIT = 255
NO_VALUE = 0xFFFF
NO_OVERLAP = 255


class _Words:
    """Distinct texts, in the order of their first use."""

    def __init__(self, *known: str) -> None:
        self.numbers = {text: number for number, text in enumerate(known)}

    def number(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))

    def texts(self) -> list[str]:
        return list(self.numbers)


class IndexColumns:
    """The rows of one chunk."""

    def __init__(self, stages: Mapping[str, int], splits: Mapping[str, int], class_ids: Mapping[str, int]) -> None:
        """Begin an empty chunk; the arguments are the numbers that stand for stages, splits and classes."""
        self._stages, self._splits, self._class_ids = stages, splits, class_ids
        self._ids: list[str] = []
        self._sources: list[str] = []
        self._reasons, self._prompts, self._marks = _Words(""), _Words(), _Words()
        self._rows: dict[str, list[int]] = {name: [] for name in ("stage", "split", "reason", "prompt", "count")}
        self._objects: dict[str, list[int]] = {name: [] for name in ("class", "score", "size", "x", "y", "iou")}
        self._marked: dict[str, list[int]] = {name: [] for name in ("row", "mark", "class")}
        self._dropped: dict[str, list[int]] = {}
        self._values: dict[str, tuple[_Words, list[int]]] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, sample: LabeledSample) -> None:
        """Add the row of a sample, accepted or not."""
        row, verdict = len(self._ids), sample.verdict
        self._ids.append(sample.sample.id)
        self._sources.append(sample.sample.source.id if sample.sample.source is not None else "")
        self._rows["stage"].append(self._stages[sample.stage])
        self._rows["split"].append(self._splits.get(sample.split, NO_SPLIT))
        self._rows["reason"].append(self._reasons.number(verdict.reason))
        self._rows["prompt"].append(self._prompts.number(sample.title))
        self._rows["count"].append(len(verdict.instances))
        for instance in verdict.instances:
            self._add_object(instance, sample)
        for marked in sample.label.marked:
            self._marked["row"].append(row)
            self._marked["mark"].append(self._marks.number(f"{marked.by}/{marked.reason}"))
            self._marked["class"].append(self._class_ids[marked.instance.class_name])
        for reason, count in verdict.dropped.items():
            _filled(self._dropped.setdefault(reason, []), row, 0).append(min(count, 0xFFFF))
        for name, value in sample.sample.variables.items():
            words, numbers = self._values.setdefault(name, (_Words(), []))
            _filled(numbers, row, NO_VALUE).append(words.number(value))

    def _add_object(self, instance: Instance, sample: LabeledSample) -> None:
        x, y, width, height = instance.bbox
        found = self._objects
        found["class"].append(self._class_ids[instance.class_name])
        found["score"].append(round(min(1.0, max(0.0, instance.score)) * 255))
        found["size"].append(round(math.sqrt(instance.area / (sample.width * sample.height)) * 0xFFFF))
        found["x"].append(min(255, int((x + width / 2) / sample.width * 256)))
        found["y"].append(min(255, int((y + height / 2) / sample.height * 256)))
        iou = instance.scores.get("iou")
        found["iou"].append(NO_OVERLAP if iou is None else round(min(1.0, max(0.0, iou)) * 254))

    def content(self) -> dict[str, Any]:
        """Return the chunk as JSON data."""
        rows, objects, marked, size = self._rows, self._objects, self._marked, len(self._ids)
        return {
            "ids": self._ids,
            **({"sources": self._sources} if any(self._sources) else {}),
            "prompts": self._prompts.texts(),
            "reasons": self._reasons.texts(),
            "stage": packed("B", rows["stage"]),
            "split": packed("B", rows["split"]),
            **{name: packed("H", rows[name]) for name in ("reason", "prompt", "count")},
            "objects": {
                name: packed("H" if name in ("class", "size") else "B", values) for name, values in objects.items()
            },
            "marks": self._marks.texts(),
            "marked": {name: packed("H", values) for name, values in marked.items()},
            "dropped": {reason: packed("H", _filled(counts, size, 0)) for reason, counts in self._dropped.items()},
            "variables": [
                {"name": name, "values": words.texts(), "value": packed("H", _filled(numbers, size, NO_VALUE))}
                for name, (words, numbers) in self._values.items()
            ],
        }


def _filled(numbers: list[int], length: int, value: int) -> list[int]:
    """Append `value` until there are `length` numbers."""
    numbers.extend([value] * (length - len(numbers)))
    return numbers
