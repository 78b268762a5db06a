"""Hugging Face datasets: Parquet with the image files in it, and a `README.md` that the Hub's viewer reads.

The features are typed: `image` is an Image, categories are a ClassLabel with the class ids. They are in the metadata of
the Parquet files, so `datasets` (4 or newer) knows them without a script. Rows are written in small groups, so that a
stream reads no more than it needs, and files in pieces of about 400 MB; a part of a dataset that is published in parts
begins new ones. The split `val` is called `validation`, as
everywhere on the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffugen_generator.publishing.dataset_format import DatasetFormat, FormatFolder
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.parts import Part
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.samples.labels import Rle

FILE_BYTES = 400 << 20
"""A file is closed after the row group with which it reaches this size."""
_GROUP_ROWS = 100
_GROUP_BYTES = 32 << 20
"""A row group ends at the first of these two limits; only one row group is kept in memory."""
_SPLITS = {"train": "train", "val": "validation", "test": "test"}

_LOADING = """\
### Hugging Face datasets

Parquet with the images in it. The folder `huggingface/` can be pushed to the Hub as it is.

```python
from datasets import load_dataset

dataset = load_dataset("huggingface", split="{split}")  # streaming=True reads it row by row
```
"""

_SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        (
            "objects",
            pa.struct(
                [
                    ("category", pa.list_(pa.int64())),
                    ("bbox", pa.list_(pa.list_(pa.float32()))),
                    ("area", pa.list_(pa.int64())),
                    ("score", pa.list_(pa.float32())),
                    ("segmentation", pa.list_(pa.string())),
                ]
            ),
        ),
        ("ignored", pa.struct([("category", pa.list_(pa.int64())), ("segmentation", pa.list_(pa.string()))])),
    ]
)


class HuggingFace(DatasetFormat):
    """Writes the Parquet files of each split, and the README last."""

    reads_images = True

    def __init__(self, folder: FormatFolder) -> None:
        """Begin with no file; each is opened with its first rows."""
        super().__init__(folder)
        schema = _SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": features(folder.class_ids)}})})
        self._files = {split: _Files(folder, split, schema) for split in folder.splits}

    def add(self, sample: LabeledSample, image: StoredImage) -> None:
        """Append the sample as a row."""
        self._files[sample.split].add(row_of(sample, image.read(), self.folder.class_ids))

    def part(self) -> dict[str, Any]:
        """Upload the last files; return how many there are."""
        for files in self._files.values():
            files.close()
        return {"files": {split: files.count for split, files in self._files.items()}}

    def join(self, content: Mapping[str, Any], part: Part) -> None:
        """Take the files of a part, with the next numbers."""
        for split, files in self._files.items():
            for number in range(int(content["files"][split])):
                files.take(part, number)

    def finish(self) -> None:
        """Upload the last files and write the README."""
        for files in self._files.values():
            files.close()
        written = [split for split, files in self._files.items() if files.count]
        self.folder.write("README.md", readme(self.folder, written).encode(), "text/markdown")

    def loading(self) -> str:
        """Return how to load it with `datasets`."""
        return _LOADING.replace("{split}", _SPLITS[self.folder.splits[0]])


class _Files:
    """The Parquet files of one split."""

    def __init__(self, folder: FormatFolder, split: str, schema: pa.Schema) -> None:
        self.count = 0
        """How many files there are."""
        self._folder = folder
        self._split = split
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._written = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._bytes += len(row["image"]["bytes"])
        if len(self._rows) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._write()
            if self._written >= FILE_BYTES:
                self.close()

    def _write(self) -> None:
        if self._writer is None:
            self.count += 1
            self._writer = pq.ParquetWriter(self._folder.local(self._name), self._schema, write_page_index=True)
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._written += self._bytes
        self._rows, self._bytes = [], 0

    def take(self, part: Part, number: int) -> None:
        self.count += 1
        self._folder.take(part, f"data/{_name(self._split, number)}", f"data/{self._name}")

    def close(self) -> None:
        if self._rows:
            self._write()
        if self._writer is not None:
            self._writer.close()
            self._writer, self._written = None, 0
            self._folder.upload(f"data/{self._name}", self._folder.local(self._name), "application/vnd.apache.parquet")

    @property
    def _name(self) -> str:
        return _name(self._split, self.count - 1)


def _name(split: str, number: int) -> str:
    return f"{_SPLITS[split]}-{number:05d}.parquet"


def row_of(sample: LabeledSample, image: bytes, class_ids: Mapping[str, int]) -> dict[str, Any]:
    """Return a row: boxes are [x, y, width, height] in pixels, a mask is the JSON of COCO's compressed RLE.

    `ignored` has regions that may belong to a class but are in no object; training should ignore them.
    """
    objects = sample.verdict.instances
    return {
        "image": {"bytes": image, "path": sample.file_name},
        "id": sample.sample.id,
        "width": sample.width,
        "height": sample.height,
        "prompt": sample.sample.prompt,
        "seed": sample.sample.seed,
        "objects": {
            "category": [class_ids[each.class_name] for each in objects],
            "bbox": [list(each.bbox) for each in objects],
            "area": [each.area for each in objects],
            "score": [each.score for each in objects],
            "segmentation": [_text_of(each.segmentation) for each in objects],
        },
        "ignored": {
            "category": [class_ids[each.class_name] for each in sample.label.ignored],
            "segmentation": [_text_of(each.segmentation) for each in sample.label.ignored],
        },
    }


def _text_of(mask: Rle) -> str:
    return json.dumps(mask.row(), separators=(",", ":"))


def features(class_ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the features as `datasets` keeps them in the metadata of a Parquet file."""

    def value(kind: str) -> dict[str, Any]:
        return {"dtype": kind, "_type": "Value"}

    def each(feature: dict[str, Any]) -> dict[str, Any]:
        return {"feature": feature, "_type": "List"}

    category = each({"names": list(class_ids), "_type": "ClassLabel"})
    return {
        "image": {"_type": "Image"},
        "id": value("string"),
        "width": value("int32"),
        "height": value("int32"),
        "prompt": value("string"),
        "seed": value("int64"),
        "objects": {
            "category": category,
            "bbox": each(each(value("float32"))),
            "area": each(value("int64")),
            "score": each(value("float32")),
            "segmentation": each(value("string")),
        },
        "ignored": {"category": category, "segmentation": each(value("string"))},
    }


def readme(folder: FormatFolder, splits: list[str]) -> str:
    """Return the card of the folder: the YAML head names the files of each split that has any."""
    files = [f"  - split: {_SPLITS[split]}\n    path: data/{_SPLITS[split]}-*.parquet" for split in splits]
    head = [
        "---",
        "pretty_name: " + json.dumps("DiffuGen " + folder.revision),
        "task_categories: [object-detection, image-segmentation]",
        "tags: [synthetic]",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *files,
        "---",
    ]
    text = (
        "Images with boxes and masks. `objects.bbox` is [x, y, width, height] in pixels; `objects.segmentation` is "
        "COCO's RLE as JSON, read by `pycocotools.mask.decode(json.loads(text))`. `ignored` has regions in the same "
        "form that may belong to a class but are in no object: training should ignore them. The README one folder up "
        "says where the images come from."
    )
    return "\n".join([*head, "", "# Dataset", "", text]) + "\n"


FORMAT = HuggingFace
