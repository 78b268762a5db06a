"""WebDataset: tar files of about 256 MB, `<split>-000000.tar`, to be read in a stream.

A part of a dataset that is published in parts begins new tar files.

A sample is two files in a row, the image and `<id>.json`. The JSON has the prompt, the seed, and the objects as in the
manifest with their class ids. `index.json` lists the tar files of each split with their number of samples. The same
samples always give the same bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

from diffugen_generator.publishing.dataset_format import DatasetFormat, FormatFolder
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.parts import Part
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.store.protocol import JSON

SHARD_BYTES = 256 << 20
"""A tar file is closed after the sample with which it reaches this size."""

_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_LOADING = """\
### WebDataset

Tar files in `webdataset/`; `webdataset/index.json` lists them for each split. The key of a sample is its id.

```python
import webdataset

samples = webdataset.WebDataset("webdataset/{first}", shardshuffle=False).decode("pil")
for image, label in samples.to_tuple("{extension}", "json"):
    classes = [each["class"] for each in label["objects"]]
```
"""


class WebDataset(DatasetFormat):
    """Writes the tar files of each split, one after another."""

    reads_images = True

    def __init__(self, folder: FormatFolder) -> None:
        """Begin with no tar file; each is opened with its first sample."""
        super().__init__(folder)
        self._shards = {split: _Shards(folder, split) for split in folder.splits}
        self._extension = "png"

    def add(self, sample: LabeledSample, image: StoredImage) -> None:
        """Append the sample to the tar file of its split."""
        self._extension = sample.extension
        label = _text(label_of(sample, self.folder.class_ids))
        files = {f"{sample.sample.id}.json": label.encode(), sample.file_name: image.read()}
        self._shards[sample.split].add(files)

    def part(self) -> dict[str, Any]:
        """Upload the last tar files; return the index, and the extension of the images if there are any."""
        for shards in self._shards.values():
            shards.close()
        index = {split: shards.index for split, shards in self._shards.items()}
        return {"index": index, **({"extension": self._extension} if any(index.values()) else {})}

    def join(self, content: Mapping[str, Any], part: Part) -> None:
        """Take the tar files of a part, with the next numbers."""
        self._extension = str(content.get("extension", self._extension))
        for split, shards in self._shards.items():
            for row in content["index"][split]:
                shards.take(part, row)

    def finish(self) -> None:
        """Upload the last tar files and write the index."""
        for shards in self._shards.values():
            shards.close()
        index = {split: shards.index for split, shards in self._shards.items()}
        self.folder.write("index.json", (json.dumps(index, indent=2) + "\n").encode(), JSON)

    def loading(self) -> str:
        """Return how to read it in a stream."""
        first = next((shards.braces() for shards in self._shards.values() if shards.index), "")
        return _LOADING.replace("{first}", first).replace("{extension}", self._extension)


class _Shards:
    """The tar files of one split."""

    def __init__(self, folder: FormatFolder, split: str) -> None:
        self.index: list[dict[str, Any]] = []
        """Name and number of samples of each tar file."""
        self._folder = folder
        self._split = split
        self._tar: tarfile.TarFile | None = None

    def take(self, part: Part, row: Mapping[str, Any]) -> None:
        name = self._next_name()
        self._folder.take(part, str(row["file"]), name)
        self.index.append({"file": name, "samples": int(row["samples"])})

    def _next_name(self) -> str:
        return f"{self._split}-{len(self.index):06d}.tar"

    def add(self, files: dict[str, bytes]) -> None:
        if self._tar is None:
            name = self._next_name()
            self._tar = tarfile.open(self._folder.local(name), "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed by `close`
            self.index.append({"file": name, "samples": 0})
        for name, data in files.items():
            member = tarfile.TarInfo(name)  # time 0, no owner
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))
            self._tar.getmembers().clear()  # it keeps 400 bytes of each file that it has written
        self.index[-1]["samples"] += 1
        if self._tar.offset >= SHARD_BYTES:
            self.close()

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None
            name = self.index[-1]["file"]
            self._folder.upload(name, self._folder.local(name), "application/x-tar")

    def braces(self) -> str:
        """The names of all tar files, as WebDataset expands them."""
        last = len(self.index) - 1
        return f"{self._split}-{{000000..{last:06d}}}.tar" if last else self.index[0]["file"]


def label_of(sample: LabeledSample, class_ids: dict[str, int]) -> dict[str, Any]:
    """Return the JSON of a sample: boxes are [x, y, width, height] in pixels, masks are COCO's compressed RLE."""
    return {
        "id": sample.sample.id,
        "width": sample.width,
        "height": sample.height,
        "prompt": sample.sample.prompt,
        "seed": sample.sample.seed,
        "stage": sample.stage,
        "objects": [{**each.row(), "classId": class_ids[each.class_name]} for each in sample.verdict.instances],
        "ignore": [each.row() for each in sample.label.ignored],
    }


FORMAT = WebDataset
