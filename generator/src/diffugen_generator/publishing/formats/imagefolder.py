"""A folder for each class, for classifiers: `<split>/<class>/<id>.<extension>`.

An image has one class if all its objects are of that class. Other images are left out; the dataset card counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffugen_generator.publishing.dataset_format import DatasetFormat, FormatFolder
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.parts import Part
from diffugen_generator.publishing.safe_names import safe_names
from diffugen_generator.publishing.stored_images import StoredImage

_LOADING = """\
### Image folder

A folder for each class in `imagefolder/<split>/`, with the images whose objects are all of that class: {kept} images.
{left_out} images with no object or with several classes are not in it.

```python
from datasets import load_dataset

images = load_dataset("imagefolder", data_dir="imagefolder")
```

`torchvision.datasets.ImageFolder("imagefolder/{split}")` reads it, too. Both number the classes by the folders that
they find, in the order of their names. In a folder's name, signs that file systems do not allow are `_`.
"""


class ImageFolder(DatasetFormat):
    """Copies images into the folders of their classes."""

    def __init__(self, folder: FormatFolder) -> None:
        """Begin with no image."""
        super().__init__(folder)
        self._folders = safe_names(folder.class_ids)
        self._kept = 0
        self._left_out = 0

    def add(self, sample: LabeledSample, image: StoredImage) -> None:
        """Copy the image of a sample of one class."""
        classes = {instance.class_name for instance in sample.verdict.instances}
        if len(classes) != 1:
            self._left_out += 1
            return
        self._kept += 1
        self.folder.copy_image(image, f"{sample.split}/{self._folders[classes.pop()]}/{sample.file_name}")

    def part(self) -> dict[str, Any]:
        """Return the counts."""
        return {"kept": self._kept, "leftOut": self._left_out}

    def join(self, content: Mapping[str, Any], part: Part) -> None:
        """Add the counts of a part."""
        self._kept += int(content["kept"])
        self._left_out += int(content["leftOut"])

    def finish(self) -> None:
        """Write nothing: the folders are the labels."""

    def loading(self) -> str:
        """Return how to load it, and how many images are in it."""
        counts = _LOADING.replace("{kept}", f"{self._kept:,}").replace("{left_out}", f"{self._left_out:,}")
        return counts.replace("{split}", self.folder.splits[0])


FORMAT = ImageFolder
