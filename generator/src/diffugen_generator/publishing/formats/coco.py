"""COCO: `coco/annotations/instances_<split>.json`, and the pictures in `coco/<split>/`.

Masks are RLE, as in the label files, with `iscrowd` 0: nothing is lost, holes included. What is to be ignored (see
`ignoreBand`) is an annotation of its class with `iscrowd` 1: COCO's evaluation counts neither hits nor misses there,
and trainers leave such annotations out of their targets. Category ids are the
class ids plus one: COCO's own begin at 1, and torchvision's detectors take category 0 for the background. Image
and annotation ids count from 1 in each split.
"""

from __future__ import annotations

import json
from typing import IO, Any

from pycocotools import mask as coco_mask

from diffugen_generator.publishing.entries import Entry
from diffugen_generator.publishing.release import Release
from diffugen_generator.samples.labels import Instance, Region
from diffugen_generator.store.protocol import JSON


def category_id(class_id: int) -> int:
    """Return the COCO category of a class id."""
    return class_id + 1


class Coco:
    """Writes one annotation file for each split, in bounded memory."""

    def __init__(self, release: Release) -> None:
        """Begin with empty splits."""
        self._release = release
        self._splits = {split: _Split(release, split) for split in release.splits}

    def add(self, entry: Entry) -> None:
        """Take an accepted entry; the pictures of the rejected are not in the dataset."""
        if not entry.verdict.accepted:
            return
        self._splits[entry.split].add(entry)
        self._release.take(entry, f"coco/{entry.split}/{entry.file_name}")

    def finish(self) -> None:
        """Upload the annotation files."""
        for split in self._splits.values():
            split.finish()


class _Split:
    """One annotation file: its pictures and its annotations grow in a file each, and are put together last."""

    def __init__(self, release: Release, name: str) -> None:
        self._release = release
        self._name = name
        self._images = release.open_text(f"images_{name}.json")
        self._annotations = release.open_text(f"annotations_{name}.json")
        self._image_count = 0
        self._annotation_count = 0

    def add(self, entry: Entry) -> None:
        self._image_count += 1
        image = {
            "id": self._image_count,
            "file_name": entry.file_name,
            "width": entry.width,
            "height": entry.height,
            "prompt": entry.sample.prompt,
            "seed": entry.sample.seed,
            "stage": entry.stage,
            **({"given": dict(entry.given)} if entry.given else {}),
        }
        _append(self._images, image, first=self._image_count == 1)
        for instance in entry.verdict.instances:
            self._annotation_count += 1
            _append(self._annotations, self._annotation(instance), first=self._annotation_count == 1)
        for region in entry.label.ignored:
            self._annotation_count += 1
            _append(self._annotations, self._crowd(region), first=self._annotation_count == 1)

    def _annotation(self, instance: Instance) -> dict[str, Any]:
        return {
            "id": self._annotation_count,
            "image_id": self._image_count,
            "category_id": category_id(self._release.class_ids[instance.class_name]),
            "iscrowd": 0,
            **{name: part for name, part in instance.row().items() if name != "class"},
        }

    def _crowd(self, region: Region) -> dict[str, Any]:
        encoded = region.segmentation.row()
        return {
            "id": self._annotation_count,
            "image_id": self._image_count,
            "category_id": category_id(self._release.class_ids[region.class_name]),
            "iscrowd": 1,
            "bbox": [float(side) for side in coco_mask.toBbox(encoded)],
            "area": int(coco_mask.area(encoded)),
            "segmentation": encoded,
        }

    def finish(self) -> None:
        name = f"instances_{self._name}.json"
        path = self._release.scratch / name
        head = {
            "info": {"description": "Drawn and labelled by DiffuGen", "version": self._release.folder.split("/")[1]},
            "licenses": [],
            "categories": [
                {"id": category_id(number), "name": name, "supercategory": ""}
                for name, number in self._release.class_ids.items()
            ],
        }
        with path.open("w", encoding="utf-8") as out:
            out.write(json.dumps(head)[:-1])
            for key, part in (("images", self._images), ("annotations", self._annotations)):
                out.write(f', "{key}": [')
                part.seek(0)
                while chunk := part.read(1 << 20):
                    out.write(chunk)
                out.write("\n]")
            out.write("}\n")
        self._release.upload(f"coco/annotations/{name}", path, JSON)


def _append(part: IO[str], value: dict[str, Any], *, first: bool) -> None:
    part.write("\n" if first else ",\n")
    part.write(json.dumps(value, separators=(",", ":")))
