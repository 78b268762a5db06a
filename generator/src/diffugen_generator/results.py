"""Results of `diffugen run` and `diffugen label`, for tables and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from diffugen_api.contract import Published, ShardCounts, StagePlan
from diffugen_api.orders import WorkOrder

REPEATED: Final = "RepeatedFile"
"""Why `diffugen label` skips a file that it has already; its row of the manifest has the id of the first one."""
NO_CAPTION: Final = "NoCaption"
"""Why `diffugen label` skips an image that only a caption could describe."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """The result of one stage of a run."""

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
    """The result of a run."""

    order: WorkOrder
    stages: list[StageResult]
    published: Published
    seconds: float
    classes: dict[str, int] = field(default_factory=dict)
    """Number of objects of each class, in the order of the manifest."""
    splits: dict[str, int] = field(default_factory=dict)
    """Number of images of each split."""

    @property
    def report(self) -> str:
        """The URI of the report."""
        return f"{self.published.uri}/report.html"

    @property
    def contact_sheet(self) -> str:
        """The URI of the contact sheet."""
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
            "report": self.report,
            "contactSheet": self.contact_sheet,
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, slots=True)
class LabelResult:
    """The result of `diffugen label`."""

    run: RunResult
    skipped: Mapping[str, int]
    """Number of skipped files, by reason."""
    others: int
    """Number of files that are neither images nor captions of images, by their names; they are not read."""
    converted: int
    """Number of images that were converted, because the file is not an upright RGB image."""
    rejected: Mapping[str, int]
    """Number of labeled images that are not published, by reason."""
    uncaptioned: int
    """Number of images without a caption; for attention they get a text that names every class."""
    nameless: int
    """Number of images whose caption names no class, so that attention labels nothing in them."""

    def row(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            **self.run.row(),
            "skipped": dict(self.skipped),
            "otherFiles": self.others,
            "converted": self.converted,
            "rejected": dict(self.rejected),
            "uncaptioned": self.uncaptioned,
            "nameless": self.nameless,
        }
