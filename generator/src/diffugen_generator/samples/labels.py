"""Labels: the content of a sample's label file and its JSON form.

Masks are run-length encoded as in COCO: a label file of a 512 px image has a few kB, and every COCO reader can
decode it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from diffugen_api.plan import canonical
from diffugen_generator.failures import Damaged
from diffugen_generator.samples.documents import checked, parse, sealed
from diffugen_generator.samples.run_lengths import area_of
from diffugen_generator.store.protocol import Store

MOST_OBJECTS = 10_000
"""The most objects and regions in one label file; labelers keep a hundred of each image."""


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
        """Return the mask in the form of pycocotools: `counts` as bytes."""
        return {"size": list(self.size), "counts": self.counts.encode("ascii")}

    def row(self) -> dict[str, Any]:
        """Return the mask as JSON data in the form of COCO: `counts` as text."""
        return {"size": list(self.size), "counts": self.counts}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Rle:
        """Read what `row` wrote; raise `ValueError` if it is not a valid mask."""
        return cls.with_area(row)[0]

    @classmethod
    def with_area(cls, row: Mapping[str, Any]) -> tuple[Rle, int]:
        """Return what `row` wrote and its number of pixels; raise `ValueError` if it is not a valid mask."""
        height, width = (int(side) for side in row["size"])
        mask = cls((height, width), str(row["counts"]))
        return mask, area_of(mask.size, mask.counts)


@dataclass(frozen=True, slots=True)
class Instance:
    """One labeled object."""

    class_name: str
    score: float
    """In 0..1: how much the evidence inside the mask exceeds the evidence outside."""
    bbox: tuple[float, float, float, float]
    """x, y, width, height in pixels, from the upper left corner of the image."""
    area: int
    """Pixels of the mask."""
    segmentation: Rle
    scores: Mapping[str, float] = field(default_factory=dict)
    """With two labelers: the score of each, and the overlap (IoU) of their masks."""

    def row(self) -> dict[str, Any]:
        """Return the instance as JSON data; scores are rounded, so that equal labels give equal bytes."""
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
        """Read what `row` wrote; raise `ValueError` if a value is out of range."""
        x, y, width, height = (float(value) for value in row["bbox"])
        box = (x, y, width, height)
        mask, pixels = Rle.with_area(row["segmentation"])
        score, area = float(row["score"]), int(row["area"])
        rows, columns = mask.size
        if not (x >= 0 and y >= 0 and 0 < width <= columns - x and 0 < height <= rows - y):  # also rejects NaN
            raise ValueError(f"bbox: {list(box)} is not in an image of {columns} x {rows} pixels")
        if not math.isfinite(score):
            raise ValueError("score: not a finite number")
        if area != pixels:
            raise ValueError(f"area: {area} is not that of the mask")
        return cls(str(row["class"]), score, box, area, mask, row.get("scores", {}))


@dataclass(frozen=True, slots=True)
class MarkedInstance:
    """An object that only one of two labelers found: kept in the label file, not published."""

    instance: Instance
    by: str
    """The labeler: attention or detector."""
    reason: str
    """In CamelCase."""
    overlap: float
    """Intersection over union with the other labeler's best match: of the object's class, or of any class if the
    reason is that the class differs."""

    def row(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {**self.instance.row(), "by": self.by, "reason": self.reason, "overlap": round(self.overlap, 4)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> MarkedInstance:
        """Read what `row` wrote."""
        return cls(Instance.from_row(row), str(row["by"]), str(row["reason"]), float(row["overlap"]))


@dataclass(frozen=True, slots=True)
class Region:
    """Pixels that may belong to a class but are in no object; training should ignore them."""

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
    """The labels of one sample, and the figures of its image that `quality` needs."""

    id: str
    instances: tuple[Instance, ...]
    marked: tuple[MarkedInstance, ...] = ()
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """Statistics of the image: `deviation` and `hash` (`labeling.evidence.image_statistics`)."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores of the whole image: `clip`, `safety`."""
    ignored: tuple[Region, ...] = ()

    def row(self) -> dict[str, Any]:
        """Return the label as JSON data; empty fields except `instances` are left out."""
        return {
            "id": self.id,
            "instances": [instance.row() for instance in self.instances],
            **ignore_rows(self.ignored),
            **({"marked": [each.row() for each in self.marked]} if self.marked else {}),
            **({"looks": dict(self.statistics)} if self.statistics else {}),
            **({"scores": rounded(self.scores)} if self.scores else {}),
        }


def ignore_rows(ignored: Sequence[Region]) -> dict[str, Any]:
    """Return the entry `ignore` of a row; an empty mapping if there are no regions."""
    return {"ignore": [region.row() for region in ignored]} if ignored else {}


def rounded(scores: Mapping[str, float]) -> dict[str, float]:
    """Return scores rounded to four digits, so that equal labels give equal bytes."""
    return {name: round(score, 4) for name, score in scores.items()}


def dumps_label(label: Label) -> bytes:
    """Return a label file; equal labels give equal bytes."""
    return canonical(sealed(label.row())) + b"\n"


def loads(data: bytes) -> Label:
    """Read a label file; raise `ValueError` if it is not one."""
    content = parse(data)
    try:
        return Label(
            str(content["id"]),
            tuple(Instance.from_row(row) for row in _bounded(content["instances"])),
            tuple(MarkedInstance.from_row(row) for row in _bounded(content.get("marked", ()))),
            dict(content.get("looks", {})),
            dict(content.get("scores", {})),
            tuple(Region.from_row(row) for row in _bounded(content.get("ignore", ()))),
        )
    except KeyError as error:
        raise ValueError(f"not a label file: it has no {error}") from error
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"not a label file: {error}") from error


def _bounded(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    if len(rows) > MOST_OBJECTS:
        raise ValueError(f"more than {MOST_OBJECTS:,} objects")
    return rows


def read_label(
    store: Store, key: str, sample_id: str, *, size: tuple[int, int], classes: Collection[str] | None = None
) -> Label:
    """Return the label of a sample whose image has `size`, height and width; raise `Missing` or `Damaged`.

    `classes` are the classes that the label may contain; None allows any class.
    """
    data = store.read(key)
    label = checked(key, lambda: loads(data))
    if label.id != sample_id:
        raise Damaged(key, f"it is the label of sample {label.id[:40]}")
    every = [(each.class_name, each.segmentation) for each in (*label.instances, *(m.instance for m in label.marked))]
    every += [(each.class_name, each.segmentation) for each in label.ignored]
    for class_name, mask in every:
        if mask.size != size:
            raise Damaged(key, f"a mask has the size {list(mask.size)}, and the image {list(size)}")
        if classes is not None and class_name not in classes:
            raise Damaged(key, f"there is no class {class_name[:40]!r} in spec.classes")
    return label
