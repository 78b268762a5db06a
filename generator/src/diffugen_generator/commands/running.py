"""`diffugen run`: plan, stages and publish in this process, against a folder or a bucket. No cluster.

The same steps as in pods, in the same order, through the same store: what a cluster began, a laptop may finish.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Protocol

from diffugen_api import layout
from diffugen_api.contract import Published, ShardCounts, StagePlan
from diffugen_api.orders import WorkOrder
from diffugen_generator.planning import plan
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.reading import dataset_of
from diffugen_generator.shards import read_shard
from diffugen_generator.store import Store

Advance = Callable[[int, int], None]
"""Called with the parts done and all parts."""


class Display(Protocol):
    """Shows how far a run is."""

    def task(self, what: str, unit: str) -> AbstractContextManager[Advance]:
        """Show one more piece of work, in some unit, while the block lasts."""
        ...


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a run did for one stage."""

    plan: StagePlan
    counts: ShardCounts
    seconds: float

    def row(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            "name": self.plan.name,
            "samples": self.plan.total,
            "reused": self.plan.reused + self.counts.reused,
            "drawn": self.counts.drawn,
            "labelled": self.counts.labelled,
            "shards": self.plan.shards,
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run did, and what came of it."""

    order: WorkOrder
    stages: list[StageResult]
    published: Published
    seconds: float
    classes: dict[str, int] = field(default_factory=dict)
    """Objects of each class, in the manifest's order."""
    splits: dict[str, int] = field(default_factory=dict)
    """Pictures of each split."""

    @property
    def contact_sheet(self) -> str:
        """Where the contact sheet is."""
        return f"{self.published.uri}/contact-sheet.png"

    def row(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            "namespace": self.order.namespace,
            "name": self.order.name,
            "revision": self.order.revision,
            "stages": [stage.row() for stage in self.stages],
            "drawn": sum(stage.counts.drawn for stage in self.stages),
            "published": self.published.model_dump(mode="json", by_alias=True),
            "classes": self.classes,
            "splits": self.splits,
            "contactSheet": self.contact_sheet,
            "seconds": round(self.seconds, 1),
        }


def run(order: WorkOrder, store: Store, display: Display, *, device: str | None, stop: Event) -> RunResult:
    """Take a dataset from its spec to its publication; raise `SpecError` or a `Failure`."""
    began = time.monotonic()
    with display.task("planning", "samples") as advance:
        outcome = plan(order, store, on_progress=advance, stop=stop.is_set)
    stages = [_draw(order, found, store, display, device=device, stop=stop) for found in outcome.plan or []]
    with display.task("publishing", "samples") as advance:
        published = publish(order, store, on_progress=advance, stop=stop.is_set).published
    if published is None:
        raise AssertionError("a publish step that ends well has published")
    dataset = dataset_of(store)
    classes = {name: sum(splits.values()) for name, splits in dataset["classes"].items()}
    return RunResult(order, stages, published, time.monotonic() - began, classes, dataset["splits"])


def _draw(
    order: WorkOrder, found: StagePlan, store: Store, display: Display, *, device: str | None, stop: Event
) -> StageResult:
    """Do the shards of one stage, one after the other."""
    began = time.monotonic()
    counts = ShardCounts()
    if not found.shards:
        return StageResult(found, counts, 0)
    from diffugen_generator.stages import run_shard  # noqa: PLC0415 - the models' libraries

    missing = found.total - found.reused
    with display.task(f"stage {found.name}", "pictures") as advance:
        advance(0, missing)
        for index in range(found.shards):
            header, rows = read_shard(store, layout.shard(order.revision, found.name, index))
            before = counts.labelled + counts.reused

            def on_progress(now: ShardCounts, before: int = before) -> None:
                advance(before + now.labelled + now.reused, missing)

            done = run_shard(header, rows, store, on_progress=on_progress, stop=stop, device=device)
            counts = _sum(counts, done)
    return StageResult(found, counts, time.monotonic() - began)


def _sum(one: ShardCounts, other: ShardCounts) -> ShardCounts:
    return ShardCounts(**{name: getattr(one, name) + getattr(other, name) for name in ShardCounts.model_fields})
