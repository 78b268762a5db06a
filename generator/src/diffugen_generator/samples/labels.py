"""Label records: what a sample's label file says, and its one JSON form.

Masks are run-length encoded as COCO has them, so that a label file of a 512 px picture stays below a few kB
and every reader of COCO can decode it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from diffugen_api.plan import canonical


@dataclass(frozen=True, slots=True)
class Rle:
    """A binary mask as COCO's compressed run-length encoding."""

    size: tuple[int, int]
    """Height and width in pixels."""
    counts: str

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Rle:
        """Encode `mask` [h, w]."""
        encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        return cls((int(mask.shape[0]), int(mask.shape[1])), encoded["counts"].decode("ascii"))

    def mask(self) -> NDArray[np.bool_]:
        """Decode to [h, w]."""
        decoded: NDArray[np.uint8] = coco_mask.decode(self.encoded())
        return decoded.astype(np.bool_)

    def encoded(self) -> dict[str, Any]:
        """Return the mask as pycocotools takes it: `counts` as bytes."""
        return {"size": list(self.size), "counts": self.counts.encode("ascii")}

    def row(self) -> dict[str, Any]:
        """Return the mask as JSON data, as COCO has it: `counts` as text."""
        return {"size": list(self.size), "counts": self.counts}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Rle:
        """Read what `row` wrote."""
        height, width = row["size"]
        return cls((int(height), int(width)), str(row["counts"]))


@dataclass(frozen=True, slots=True)
class Instance:
    """One labelled object."""

    class_name: str
    score: float
    """In 0..1; how far the model's evidence inside the object stands above the evidence outside."""
    bbox: tuple[float, float, float, float]
    """x, y, width, height in pixels, from the picture's upper left corner."""
    area: int
    """Pixels of the mask."""
    segmentation: Rle
    scores: Mapping[str, float] = field(default_factory=dict)
    """With two labellers: the score of each, and the overlap of their masks."""

    def row(self) -> dict[str, Any]:
        """Return the instance as JSON data; scores are rounded to four digits, so that equal labels are equal bytes."""
        return {
            "class": self.class_name,
            "score": round(self.score, 4),
            "bbox": list(self.bbox),
            "area": self.area,
            "segmentation": self.segmentation.row(),
            **({"scores": rounded(self.scores)} if self.scores else {}),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Instance:
        """Read what `row` wrote."""
        x, y, width, height = (float(value) for value in row["bbox"])
        box, mask = (x, y, width, height), Rle.from_row(row["segmentation"])
        return cls(str(row["class"]), float(row["score"]), box, int(row["area"]), mask, row.get("scores", {}))


@dataclass(frozen=True, slots=True)
class MarkedInstance:
    """An object that only one of two labellers stands for; it is not published."""

    instance: Instance
    by: str
    """The labeller: attention or detector."""
    reason: str
    """In CamelCase."""
    overlap: float
    """Intersection over union with the other labeller's best match."""

    def row(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {**self.instance.row(), "by": self.by, "reason": self.reason, "overlap": round(self.overlap, 4)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> MarkedInstance:
        """Read what `row` wrote."""
        return cls(Instance.from_row(row), str(row["by"]), str(row["reason"]), float(row["overlap"]))


@dataclass(frozen=True, slots=True)
class Region:
    """Pixels of no object that may be a class's: neither object nor background, to be ignored in training."""

    class_name: str
    segmentation: Rle

    def row(self) -> dict[str, Any]:
        """Return the region as JSON data."""
        return {"class": self.class_name, "segmentation": self.segmentation.row()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Region:
        """Read what `row` wrote."""
        return cls(str(row["class"]), Rle.from_row(row["segmentation"]))


@dataclass(frozen=True, slots=True)
class Label:
    """The labels of one sample, and all else that `quality` asks about its picture."""

    id: str
    instances: tuple[Instance, ...]
    marked: tuple[MarkedInstance, ...] = ()
    looks: Mapping[str, Any] = field(default_factory=dict)
    """How the picture looks: `deviation` and `hash` (`labeling.looks`)."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """What models say of the whole picture: `clip`, `safety`."""
    ignored: tuple[Region, ...] = ()

    def row(self) -> dict[str, Any]:
        """Return the label as JSON data; what is empty is left out, but for instances."""
        return {
            "id": self.id,
            "instances": [instance.row() for instance in self.instances],
            **ignore_rows(self.ignored),
            **({"marked": [each.row() for each in self.marked]} if self.marked else {}),
            **({"looks": dict(self.looks)} if self.looks else {}),
            **({"scores": rounded(self.scores)} if self.scores else {}),
        }


def ignore_rows(ignored: Sequence[Region]) -> dict[str, Any]:
    """Return the entry for what is to be ignored; nothing where there is nothing."""
    return {"ignore": [region.row() for region in ignored]} if ignored else {}


def rounded(scores: Mapping[str, float]) -> dict[str, float]:
    """Return scores to four digits, so that equal labels are equal bytes."""
    return {name: round(score, 4) for name, score in scores.items()}


def dumps_label(label: Label) -> bytes:
    """Return a label file: the same bytes for the same labels."""
    return canonical(label.row()) + b"\n"


def loads(data: bytes) -> Label:
    """Read a label file; raise `ValueError` where it is none."""
    try:
        content = json.loads(data)
        return Label(
            str(content["id"]),
            tuple(Instance.from_row(row) for row in content["instances"]),
            tuple(MarkedInstance.from_row(row) for row in content.get("marked", ())),
            dict(content.get("looks", {})),
            dict(content.get("scores", {})),
            tuple(Region.from_row(row) for row in content.get("ignore", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a label file: {error}") from error
