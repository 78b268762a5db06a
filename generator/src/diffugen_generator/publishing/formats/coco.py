"""COCO: `coco/annotations/instances_<split>.json`, and the images in `coco/<split>/`.

Masks are polygons or RLE, as `output.coco.segmentation` says (`publishing/coco_segmentation.py`), with `iscrowd` 0:
evaluation skips objects with `iscrowd` 1. What is to be ignored (see `ignoreBand`) is an annotation of its class with
`iscrowd` 1: COCO's evaluation counts neither hits nor misses there, and trainers leave such annotations out of their
targets. Category ids are the class ids plus one: COCO's own begin at 1, and torchvision's detectors take category 0 for
the background. Image and annotation ids count from 1 in each split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from pycocotools import mask as coco_mask

from diffugen_api.v1alpha1.output import CocoOutput
from diffugen_generator.publishing.coco_segmentation import run_lengths, segmentation_of
from diffugen_generator.publishing.dataset_format import DatasetFormat, FormatFolder
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.parts import Part
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.samples.labels import Instance, Region
from diffugen_generator.store.protocol import JSON

_text = json.JSONEncoder(separators=(",", ":")).encode

_LOADING = """\
### COCO

Annotations in `coco/annotations/`, images in `coco/<split>/`. Category ids are the class ids plus one, as many tools
take category 0 for the background. {masks}

```python
from pycocotools.coco import COCO

coco = COCO("coco/annotations/instances_{split}.json")
masks = [coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds(imgIds=coco.getImgIds()[0]))]
```
"""


_MASKS = {
    "auto": "Masks are polygons where all readers get the mask back from them, RLE elsewhere.",
    "polygon": "Masks are polygons; a hole is joined to the border by a bridge without area.",
    "rle": "Masks are RLE.",
}


def category_id(class_id: int) -> int:
    """Return the COCO category of a class id."""
    return class_id + 1


class Coco(DatasetFormat):
    """Writes one annotation file for each split, in bounded memory."""

    def __init__(self, folder: FormatFolder) -> None:
        """Begin with empty splits."""
        super().__init__(folder)
        self._splits = {split: _Split(folder, split) for split in folder.splits}

    def add(self, sample: LabeledSample, image: StoredImage) -> None:
        """Append the sample's annotations and copy its image."""
        self._splits[sample.split].add(sample)
        self.folder.copy_image(image, f"{sample.split}/{sample.file_name}")

    def pass_over(self, split: str, objects: int) -> None:
        """Count ids on."""
        self._splits[split].pass_over(objects)

    def part(self) -> dict[str, Any]:
        """Return the number of images of each split, those of earlier parts included."""
        return {"images": {name: split.image_count for name, split in self._splits.items()}}

    def join(self, content: Mapping[str, Any], part: Part) -> None:
        """Take the number of images."""
        for name, split in self._splits.items():
            split.image_count = int(content["images"][name])

    def finish(self) -> None:
        """Upload the annotation files of the splits that have images."""
        for split in self._splits.values():
            if split.image_count:
                split.finish()

    def loading(self) -> str:
        """Return how to load it with pycocotools."""
        filled = next((name for name, split in self._splits.items() if split.image_count), self.folder.splits[0])
        masks = _MASKS[_options(self.folder).segmentation]
        return _LOADING.replace("{split}", filled).replace("{masks}", masks)


def _options(folder: FormatFolder) -> CocoOutput:
    return folder.spec.output.coco or CocoOutput()


class _Split:
    """One annotation file. Its images and its annotations go to a local file each; `finish` joins them."""

    def __init__(self, folder: FormatFolder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._class_ids = folder.class_ids
        self._segmentation = _options(folder).segmentation
        self._images = folder.open_text(f"images_{name}.json")
        self._annotations = folder.open_text(f"annotations_{name}.json")
        self.image_count = 0
        self._annotation_count = 0

    def pass_over(self, objects: int) -> None:
        self.image_count += 1
        self._annotation_count += objects

    def add(self, sample: LabeledSample) -> None:
        self.image_count += 1
        image = {
            "id": self.image_count,
            "file_name": sample.file_name,
            "width": sample.width,
            "height": sample.height,
            "prompt": sample.sample.prompt,
            "seed": sample.sample.seed,
            "stage": sample.stage,
            **({"given": dict(sample.given)} if sample.given else {}),
        }
        _append(self._images, [image], first=self.image_count == 1)
        first = self._annotation_count == 0
        annotations = [self._annotation(instance) for instance in sample.verdict.instances]
        annotations += [self._crowd(region) for region in sample.label.ignored]
        _append(self._annotations, annotations, first=first)

    def _annotation(self, instance: Instance) -> dict[str, Any]:
        self._annotation_count += 1
        row = instance.row()
        row["segmentation"] = segmentation_of(instance.segmentation, self._segmentation)
        del row["class"]
        return {
            "id": self._annotation_count,
            "image_id": self.image_count,
            "category_id": category_id(self._class_ids[instance.class_name]),
            "iscrowd": 0,
            **row,
        }

    def _crowd(self, region: Region) -> dict[str, Any]:
        self._annotation_count += 1
        encoded = region.segmentation.row()
        return {
            "id": self._annotation_count,
            "image_id": self.image_count,
            "category_id": category_id(self._class_ids[region.class_name]),
            "iscrowd": 1,
            "bbox": [float(side) for side in coco_mask.toBbox(encoded)],
            "area": int(coco_mask.area(encoded)),
            "segmentation": run_lengths(region.segmentation.mask()),
        }

    def finish(self) -> None:
        name = f"instances_{self._name}.json"
        path = self._folder.local(name)
        head = {
            "info": {"description": "Drawn and labelled by DiffuGen", "version": self._folder.revision},
            "licenses": [],
            "categories": [
                {"id": category_id(number), "name": name, "supercategory": ""}
                for name, number in self._folder.class_ids.items()
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
        self._folder.upload(f"annotations/{name}", path, JSON)


def _append(part: IO[str], values: list[dict[str, Any]], *, first: bool) -> None:
    """Append values to a list in JSON, each on a line of its own; `first` if the list is empty."""
    if values:
        text = "".join([f",\n{_text(value)}" for value in values])
        part.write(text[1:] if first else text)


FORMAT = Coco
