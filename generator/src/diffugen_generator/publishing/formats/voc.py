"""Pascal VOC: `Annotations/` (XML), `JPEGImages/`, `SegmentationClass/`, `SegmentationObject/`, `ImageSets/`.

The folders are those of VOC 2012. Box corners are whole pixels, counted from 1, both inside the box. In the PNGs of
`SegmentationClass`, 0 is background, a class is its id plus one and 255 is to be ignored, so there are at most 254
classes; in those of `SegmentationObject`, an object is its place in the XML, from 1. Both have VOC's palette. A PNG has
one object a pixel: where objects overlap, the smaller one is on top (`publishing/label_maps.py`).
"""

from __future__ import annotations

import io
import re
from typing import IO, Any
from xml.etree import ElementTree as Xml  # it only writes here; nothing is parsed

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffugen_generator.publishing.dataset_format import DatasetFormat, FormatFolder
from diffugen_generator.publishing.label_maps import class_map, instance_map
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.samples.labels import Instance

_LOADING = """\
### Pascal VOC

The folders of VOC 2012: boxes in `voc/Annotations/`, masks in `voc/SegmentationClass/` and `voc/SegmentationObject/`
(0 is background, 255 is to be ignored), splits in `voc/ImageSets/Segmentation/`. The classes of the masks are in
`voc/labelmap.txt`.

```python
import numpy as np
from PIL import Image

for name in open("voc/ImageSets/Segmentation/{split}.txt").read().split():
    classes = np.array(Image.open(f"voc/SegmentationClass/{name}.png"))
```
"""


class Voc(DatasetFormat):
    """Writes an XML file and two PNGs for each sample, and the lists of the splits last."""

    def __init__(self, folder: FormatFolder) -> None:
        """Begin with empty splits."""
        super().__init__(folder)
        self._lists: dict[str, IO[str]] = {split: folder.open_text(f"{split}.txt") for split in folder.splits}

    def add(self, sample: LabeledSample, image: StoredImage) -> None:
        """Write the sample's annotation and masks, and copy its image."""
        name = sample.sample.id
        self._lists[sample.split].write(f"{name}\n")
        self.folder.copy_image(image, f"JPEGImages/{_file_name(sample)}")
        self.folder.put(f"Annotations/{name}.xml", annotation(sample), "application/xml")
        classes, objects = class_map(sample, self.folder.class_ids), instance_map(sample, np.uint8)
        self.folder.put(f"SegmentationClass/{name}.png", _png(classes), "image/png")
        self.folder.put(f"SegmentationObject/{name}.png", _png(objects), "image/png")

    def finish(self) -> None:
        """Write the lists of the splits and the classes."""
        for split, names in self._lists.items():
            names.seek(0)
            data = names.read().encode()
            for task in ("Main", "Segmentation"):
                self.folder.write(f"ImageSets/{task}/{split}.txt", data, "text/plain")
        self.folder.write("labelmap.txt", label_map(self.folder.class_ids).encode(), "text/plain")

    def loading(self) -> str:
        """Return how to read its masks."""
        return _LOADING.replace("{split}", self.folder.splits[0])


def annotation(sample: LabeledSample) -> bytes:
    """Return a sample's XML file."""
    root = Xml.Element("annotation")
    _texts(root, folder="JPEGImages", filename=_file_name(sample))
    _texts(Xml.SubElement(root, "source"), database="DiffuGen")
    _texts(Xml.SubElement(root, "size"), width=sample.width, height=sample.height, depth=3)
    _texts(root, segmented=1)
    for instance in sample.verdict.instances:
        _add_object(root, instance, (sample.width, sample.height))
    Xml.indent(root)
    data: bytes = Xml.tostring(root, encoding="utf-8")
    return data + b"\n"


_NOT_XML = re.compile("[\ufffe\uffff]")
"""The code points of a class name that XML 1.0 forbids: a parser refuses the whole file. `_` takes their place."""

_LABEL_MARKS = re.compile("^#|[:\ufffe\uffff]")
"""Signs that would end a name in `labelmap.txt` or make its line a comment, and those that the XML has as `_`."""


def label_map(class_ids: dict[str, int]) -> str:
    """Return `labelmap.txt`, as CVAT and Datumaro have it: a line for each class with its color in the palette."""
    colors = palette().reshape(-1, 3)
    names = {"background": 0, **{name: number + 1 for name, number in class_ids.items()}}
    lines = [
        f"{_LABEL_MARKS.sub('_', name)}:{','.join(str(part) for part in colors[value])}::"
        for name, value in names.items()
    ]
    return "\n".join(["# label:color_rgb:parts:actions", *lines]) + "\n"


def palette() -> NDArray[np.uint8]:
    """Return VOC's palette [768]: three bytes for each of 256 values; bits of the value, spread over the colors."""
    values = np.arange(256)
    colors = np.zeros((256, 3), np.int64)
    for step in range(8):
        for channel in range(3):
            colors[:, channel] |= ((values >> (3 * step + channel)) & 1) << (7 - step)
    return colors.astype(np.uint8).ravel()


def _file_name(sample: LabeledSample) -> str:
    # VOC's readers ask for .jpg
    extension = "jpg" if sample.extension == "jpeg" else sample.extension
    return f"{sample.sample.id}.{extension}"


def _add_object(root: Xml.Element, instance: Instance, size: tuple[int, int]) -> None:
    x, y, width, height = (round(side) for side in instance.bbox)
    cut = x <= 0 or y <= 0 or x + width >= size[0] or y + height >= size[1]
    found = Xml.SubElement(root, "object")
    name = _NOT_XML.sub("_", instance.class_name)
    _texts(found, name=name, pose="Unspecified", truncated=int(cut), difficult=0)
    _texts(Xml.SubElement(found, "bndbox"), xmin=x + 1, ymin=y + 1, xmax=x + width, ymax=y + height)


def _texts(parent: Xml.Element, **texts: Any) -> None:
    for name, text in texts.items():
        Xml.SubElement(parent, name).text = str(text)


def _png(values: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(values)  # of mode L; with a palette it becomes P
    image.putpalette(palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


FORMAT = Voc
