"""Label records: what a sample's label file says, and its one JSON form.

Masks are run-length encoded as COCO has them, so that a label file of a 512 px picture stays below a few kB
and every reader of COCO can decode it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        decoded: NDArray[np.uint8] = coco_mask.decode({"size": list(self.size), "counts": self.counts.encode("ascii")})
        return decoded.astype(np.bool_)


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

    def row(self) -> dict[str, Any]:
        """Return the instance as JSON data; scores are rounded to four digits, so that equal labels are equal bytes."""
        return {
            "class": self.class_name,
            "score": round(self.score, 4),
            "bbox": list(self.bbox),
            "area": self.area,
            "segmentation": {"size": list(self.segmentation.size), "counts": self.segmentation.counts},
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Instance:
        """Read what `row` wrote."""
        x, y, width, height = (float(value) for value in row["bbox"])
        rows, columns = row["segmentation"]["size"]
        rle = Rle((int(rows), int(columns)), str(row["segmentation"]["counts"]))
        return cls(str(row["class"]), float(row["score"]), (x, y, width, height), int(row["area"]), rle)


@dataclass(frozen=True, slots=True)
class Region:
    """Pixels of no object that may be a class's: neither object nor background, to be ignored in training."""

    class_name: str
    segmentation: Rle

    def row(self) -> dict[str, Any]:
        """Return the region as JSON data."""
        size, counts = self.segmentation.size, self.segmentation.counts
        return {"class": self.class_name, "segmentation": {"size": list(size), "counts": counts}}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Region:
        """Read what `row` wrote."""
        rows, columns = row["segmentation"]["size"]
        return cls(str(row["class"]), Rle((int(rows), int(columns)), str(row["segmentation"]["counts"])))


@dataclass(frozen=True, slots=True)
class Label:
    """The labels of one sample."""

    id: str
    instances: tuple[Instance, ...]
    ignored: tuple[Region, ...] = ()


def dumps(sample_id: str, instances: Sequence[Instance], ignored: Sequence[Region] = ()) -> bytes:
    """Return a label file: the same bytes for the same labels."""
    content = {"id": sample_id, "instances": [instance.row() for instance in instances], **ignore_rows(ignored)}
    return canonical(content) + b"\n"


def ignore_rows(ignored: Sequence[Region]) -> dict[str, Any]:
    """Return the entry for what is to be ignored; nothing where there is nothing."""
    return {"ignore": [region.row() for region in ignored]} if ignored else {}


def loads(data: bytes) -> Label:
    """Read a label file; raise `ValueError` where it is none."""
    try:
        content = json.loads(data)
        instances = tuple(Instance.from_row(row) for row in content["instances"])
        return Label(str(content["id"]), instances, tuple(Region.from_row(row) for row in content.get("ignore", ())))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a label file: {error}") from error
