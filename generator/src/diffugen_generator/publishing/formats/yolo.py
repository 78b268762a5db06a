"""YOLO as Ultralytics reads it: `yolo/data.yaml`, `yolo/images/<split>/`, `yolo/labels/<split>/`.

A label file has a line for each object: the class id, from 0 in the manifest's order, and numbers that are fractions of
width and height. With `output.yolo.task: segment` these are the polygon, with `detect` the center, width and height of
the box. An image without objects has an empty file, so that it counts as a negative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import yaml

from diffugen_api.v1alpha1.output import YoloOutput
from diffugen_generator.publishing.dataset_format import DatasetFormat, FormatFolder
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.parts import Part
from diffugen_generator.publishing.polygons import Points, polygon_of
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.samples.labels import Instance

Task = Literal["segment", "detect"]

_YAML = "application/yaml"

_LOADING = """\
### YOLO

{shapes} in `yolo/labels/<split>/`, class ids from 0; an image without objects has an empty file.

```sh
yolo {task} train data=yolo/data.yaml model={model}
```
"""


class Yolo(DatasetFormat):
    """Writes a label file for each sample, and the index last."""

    def __init__(self, folder: FormatFolder) -> None:
        """Begin with empty splits."""
        super().__init__(folder)
        self._filled: set[str] = set()

    def add(self, sample: LabeledSample, image: StoredImage) -> None:
        """Write the sample's label file and copy its image."""
        self._filled.add(sample.split)
        self.folder.copy_image(image, f"images/{sample.split}/{sample.file_name}")
        lines = label_lines(sample, self.folder.class_ids, self._task)
        self.folder.put(f"labels/{sample.split}/{sample.sample.id}.txt", lines.encode(), "text/plain")

    def part(self) -> dict[str, Any]:
        """Return the splits that have images."""
        return {"filled": sorted(self._filled)}

    def join(self, content: Mapping[str, Any], part: Part) -> None:
        """Take the splits that have images."""
        self._filled.update(content["filled"])

    def finish(self) -> None:
        """Write `data.yaml`, without which no tool reads the folder as a dataset."""
        splits = [split for split in self.folder.splits if split in self._filled]
        self.folder.write("data.yaml", data_yaml(self._task, splits, list(self.folder.class_ids)).encode(), _YAML)

    def loading(self) -> str:
        """Return how to train on it with Ultralytics."""
        shapes, model = ("Boxes", "yolo11n.pt") if self._task == "detect" else ("Polygons", "yolo11n-seg.pt")
        return _LOADING.replace("{shapes}", shapes).replace("{task}", self._task).replace("{model}", model)

    @property
    def _task(self) -> Task:
        return (self.folder.spec.output.yolo or YoloOutput()).task


def label_lines(sample: LabeledSample, class_ids: dict[str, int], task: Task) -> str:
    """Return a sample's label file."""
    lines = []
    for instance in sample.verdict.instances:
        numbers = _box(instance) if task == "detect" else polygon_of(instance.segmentation.mask())
        if len(numbers):
            fractions = (numbers / (sample.width, sample.height)).ravel()
            lines.append(f"{class_ids[instance.class_name]} {' '.join(f'{value:.6f}' for value in fractions)}\n")
    return "".join(lines)


def _box(instance: Instance) -> Points:
    """Return the box as two points, its center and its size, in pixels."""
    x, y, width, height = instance.bbox
    return np.array([[x + width / 2, y + height / 2], [width, height]])


def data_yaml(task: Task, splits: list[str], classes: list[str]) -> str:
    """Return the index file; without `path`, paths are relative to the file itself."""
    lines = [f"# Ultralytics dataset: yolo {task} train data=data.yaml"]
    for split in ("train", "val", "test"):
        if split in splits:
            lines.append(f"{split}: images/{split}")
        elif split != "test" and splits:
            # Ultralytics refuses a file without both; this one has no image
            lines.append(f"{split}: images/{splits[0]}  # there is no split {split!r}: this is {splits[0]!r} again")
    lines.append("names:")
    lines += [f"  {number}: {_quoted(name)}" for number, name in enumerate(classes)]
    return "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    """Return `name` as a string of YAML on one line.

    It is ASCII, because some readers open the file in the system's encoding. JSON is not the same: it escapes a
    character above U+FFFF as two surrogates, and PyYAML does not join them.
    """
    quoted: str = yaml.safe_dump(name, default_style='"', width=math.inf)
    return quoted.rstrip("\n")


FORMAT = Yolo
