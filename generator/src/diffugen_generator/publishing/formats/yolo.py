"""YOLO segmentation as Ultralytics reads it: `yolo/data.yaml`, `images/<split>/`, `labels/<split>/`.

A label file has a line for each object: the class id, from 0 in the manifest's order, and the polygon as
fractions of width and height. A picture without objects has an empty file, so that it counts as a negative.
"""

from __future__ import annotations

import json

from diffugen_generator.publishing.entries import Entry
from diffugen_generator.publishing.formats.polygons import polygon_of
from diffugen_generator.publishing.release import Release

_YAML = "application/yaml"


class Yolo:
    """Writes a label file for each accepted picture, and the index last."""

    def __init__(self, release: Release) -> None:
        """Begin with nothing."""
        self._release = release
        self._class_ids = release.class_ids

    def add(self, entry: Entry) -> None:
        """Take an accepted entry."""
        if not entry.verdict.accepted:
            return
        self._release.take(entry, f"yolo/images/{entry.split}/{entry.file_name}")
        lines = label_lines(entry, self._class_ids)
        self._release.put(f"yolo/labels/{entry.split}/{entry.sample.id}.txt", lines.encode(), "text/plain")

    def finish(self) -> None:
        """Write `data.yaml`, without which nobody takes the folder for a dataset."""
        self._release.write("yolo/data.yaml", data_yaml(self._release.splits, list(self._class_ids)).encode(), _YAML)


def label_lines(entry: Entry, class_ids: dict[str, int]) -> str:
    """Return an entry's label file."""
    lines = []
    for instance in entry.verdict.instances:
        polygon = polygon_of(instance.segmentation.mask()) / (entry.width, entry.height)
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
