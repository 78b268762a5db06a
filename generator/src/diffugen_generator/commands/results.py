"""What `diffugen run` and `diffugen label` did, for tables and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffugen_api.contract import Published, ShardCounts, StagePlan
from diffugen_api.orders import WorkOrder


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
            "reused": self.plan.reused - self.plan.skipped + self.counts.reused,
            "skipped": self.plan.skipped + self.counts.skipped,
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


@dataclass(frozen=True, slots=True)
class Labelled:
    """What `label` did."""

    run: RunResult
    skipped: Mapping[str, int]
    """Files that were skipped, by reason."""
    converted: int
    """Pictures that are kept as another file, since theirs is not an upright RGB one."""
    rejected: Mapping[str, int]
    """Pictures that were looked at and are not published, by reason."""
    uncaptioned: int
    """Pictures that attention read with a text that names every class, as nobody wrote one beside them."""
    nameless: int
    """Pictures whose caption names no class, so that attention labels nothing in them."""

    def row(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            **self.run.row(),
            "skipped": dict(self.skipped),
            "converted": self.converted,
            "rejected": dict(self.rejected),
            "uncaptioned": self.uncaptioned,
            "nameless": self.nameless,
        }
