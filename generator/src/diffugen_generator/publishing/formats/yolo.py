"""YOLO segmentation as Ultralytics reads it: `yolo/data.yaml`, `yolo/images/<split>/`, `yolo/labels/<split>/`.

A label file has a line for each object: the class id, from 0 in the manifest's order, and the polygon as
fractions of width and height. An image without objects has an empty file, so that it counts as a negative.
"""

from __future__ import annotations

import json

from diffugen_generator.publishing.dataset_format import DatasetFormat
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.polygons import polygon_of
from diffugen_generator.publishing.stored_images import StoredImage

_YAML = "application/yaml"

_LOADING = """\
### YOLO segmentation

Polygons in `yolo/labels/<split>/`, class ids from 0; an image without objects has an empty file.

```sh
yolo segment train data=yolo/data.yaml model=yolo11n-seg.pt
```
"""


class Yolo(DatasetFormat):
    """Writes a label file for each sample, and the index last."""

    def add(self, sample: LabeledSample, image: StoredImage) -> None:
        """Write the sample's label file and copy its image."""
        self.folder.copy_image(sample, f"images/{sample.split}/{sample.file_name}")
        lines = label_lines(sample, self.folder.class_ids)
        self.folder.put(f"labels/{sample.split}/{sample.sample.id}.txt", lines.encode(), "text/plain")

    def finish(self) -> None:
        """Write `data.yaml`, without which no tool reads the folder as a dataset."""
        self.folder.write("data.yaml", data_yaml(self.folder.splits, list(self.folder.class_ids)).encode(), _YAML)

    def loading(self) -> str:
        """Return how to train on it with Ultralytics."""
        return _LOADING


def label_lines(sample: LabeledSample, class_ids: dict[str, int]) -> str:
    """Return a sample's label file."""
    lines = []
    for instance in sample.verdict.instances:
        polygon = polygon_of(instance.segmentation.mask()) / (sample.width, sample.height)
        if len(polygon):
            numbers = " ".join(f"{value:.6f}" for value in polygon.ravel())
            lines.append(f"{class_ids[instance.class_name]} {numbers}\n")
    return "".join(lines)


def data_yaml(splits: list[str], classes: list[str]) -> str:
    """Return the index file; without `path`, paths are relative to the file itself."""
    lines = ["# Ultralytics segmentation dataset: yolo segment train data=data.yaml"]
    for split in ("train", "val", "test"):
        if split in splits:
            lines.append(f"{split}: images/{split}")
        elif split != "test":
            # Ultralytics refuses a file without both; spec.output.splits leaves this one empty
            lines.append(f"{split}: images/{splits[0]}  # there is no split {split!r}: this is {splits[0]!r} again")
    lines.append("names:")
    lines += [f"  {number}: {json.dumps(name)}" for number, name in enumerate(classes)]
    return "\n".join(lines) + "\n"


FORMAT = Yolo
