"""Masks as PNG: `classes/<split>/`, `instances/<split>/`, and `overlays/<split>/` for people.

In `classes`, a pixel is 0 for background, the class id plus one, or 255 for what is to be ignored (8 bits). With more
than 254 classes, it has 16 bits, and 65535 is to be ignored. In `instances`, it is 0 or the number of the object, from
1 in the order of the manifest (16 bits). A PNG has one object a pixel: where objects overlap, the smaller one is on top
(`publishing/label_maps.py`). An overlay is the image with the objects in the color of their class.
"""

from __future__ import annotations

import io
import json

import cv2
import numpy as np
from PIL import Image

from diffugen_generator.publishing.dataset_format import DatasetFormat
from diffugen_generator.publishing.label_maps import class_map, ignored_value, instance_map
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.palette import color_of
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.store.protocol import JSON

_TINT = 0.45
"""Opacity of a class's color on an overlay, in 0..1."""

_LOADING = """\
### Masks

A PNG of class ids for each image in `masks/classes/<split>/` (`masks/classes.json` has their names; 0 is background,
{ignore} is to be ignored), one of object numbers in `masks/instances/<split>/`, and the image with colored objects in
`masks/overlays/<split>/`.

```python
from pathlib import Path
import numpy as np
from PIL import Image

for path in Path("masks/images/{split}").iterdir():
    image, classes = Image.open(path), np.array(Image.open(f"masks/classes/{split}/{path.stem}.png"))
```
"""


class Masks(DatasetFormat):
    """Writes three image files for each sample, and the names of the classes last."""

    reads_images = True

    def add(self, sample: LabeledSample, image: StoredImage) -> None:
        """Write the sample's masks and overlay, and copy its image."""
        folder, name = self.folder, f"{sample.split}/{sample.sample.id}"
        overlay = overlay_of(image.read(), sample, folder.class_ids)
        folder.copy_image(image, f"images/{sample.split}/{sample.file_name}")
        folder.put(f"classes/{name}.png", _png(Image.fromarray(class_map(sample, folder.class_ids))), "image/png")
        folder.put(f"instances/{name}.png", _png(Image.fromarray(instance_map(sample, np.uint16))), "image/png")
        folder.put(f"overlays/{name}.jpg", overlay, "image/jpeg")

    def finish(self) -> None:
        """Write the meaning of the values in the class masks."""
        names = {name: number + 1 for name, number in self.folder.class_ids.items()}
        data = {"background": 0, "ignore": ignored_value(len(names)), "classes": names}
        self.folder.write("classes.json", (json.dumps(data, indent=2) + "\n").encode(), JSON)

    def loading(self) -> str:
        """Return how to read images with their masks."""
        ignore = ignored_value(len(self.folder.class_ids))
        return _LOADING.replace("{split}", self.folder.splits[0]).replace("{ignore}", str(ignore))


def overlay_of(image: bytes, sample: LabeledSample, class_ids: dict[str, int]) -> bytes:
    """Return an image file (JPEG) with the sample's objects filled and outlined, the smaller ones on top."""
    with Image.open(io.BytesIO(image)) as opened:
        pixels = np.array(opened.convert("RGB"))
    for instance in sorted(sample.verdict.instances, key=lambda each: each.area, reverse=True):
        mask, color = instance.segmentation.mask(), color_of(class_ids[instance.class_name])
        pixels[mask] = (pixels[mask] * (1 - _TINT) + np.array(color) * _TINT).round().astype(np.uint8)
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, outlines, -1, color, 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=90)
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


FORMAT = Masks
