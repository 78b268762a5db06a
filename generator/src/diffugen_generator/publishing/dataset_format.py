"""What a dataset format is: how it receives the samples, and where it writes.

Publishing makes one pass over the samples, and all formats of the dataset share it:

    format = Coco(folder)            # begin: before the first sample
    format.add(sample, image)        # once for each accepted sample, in the order of the manifest
    format.finish()                  # end: after the last sample
    format.loading()                 # the section of the dataset card

A large dataset is published in parts by several processes. Each calls `pass_over` for the samples before its own, `add`
for its own, and `part`. The last process calls `join` for each part, then `finish` and `loading`. The files are the
same as without parts, except that a format may begin a new file where a part begins.

A format keeps no list of samples in memory: it writes each one at once, or appends it to a local file. It has three
ways to write a file: `put` for one of many small objects, `write` for an index file from memory, `upload` for a local
file (a shard, a long index). Each way is open to each format, and each path is relative to the format's own folder.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, ClassVar

from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.parts import Part
from diffugen_generator.publishing.release import BUFFER, Release
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.store.protocol import BINARY


class FormatFolder:
    """The folder of one format in a release, `<name>/`. All paths here are relative to it."""

    def __init__(self, release: Release, name: str) -> None:
        """Open the folder of the format `name`, in the store and for local files."""
        self.name = name
        self._release = release
        self._scratch = release.scratch / name
        self._scratch.mkdir()
        self._texts: dict[str, IO[str]] = {}

    @property
    def splits(self) -> list[str]:
        """The splits that the spec asks for, of train, val and test."""
        return self._release.splits

    @property
    def class_ids(self) -> dict[str, int]:
        """Each class's id, from 0, in the order of the manifest."""
        return self._release.class_ids

    @property
    def spec(self) -> LabeledDatasetSpec:
        """The dataset's spec; a format's own options are the field of `spec.output` with the format's name."""
        return self._release.spec

    @property
    def revision(self) -> str:
        """The name of the revision's folder in the store."""
        return self._release.name

    def local(self, name: str) -> Path:
        """Return the path of a local file, for a library that opens its files itself; `upload` it when it is whole."""
        return self._scratch / name

    def open_text(self, name: str) -> IO[str]:
        """Open a local file, to be written and then read. It is closed when publishing ends.

        Files that are opened before the first sample have all samples in the end, also where these were written in
        parts: the texts of the parts are joined in their order.
        """
        opened = self._release.open_files.enter_context(self.local(name).open("w+", buffering=BUFFER, encoding="utf-8"))
        self._texts[name] = opened
        return opened

    def write(self, path: str, data: bytes, content_type: str = BINARY) -> None:
        """Write an index file from memory."""
        self._release.write(f"{self.name}/{path}", data, content_type)

    def upload(self, path: str, source: Path, content_type: str = BINARY) -> None:
        """Upload a local file as an index file and delete it."""
        self._release.upload(f"{self.name}/{path}", source, content_type)

    def put(self, path: str, data: bytes, content_type: str) -> None:
        """Write one of many small objects in the background."""
        self._release.put(f"{self.name}/{path}", data, content_type)

    def copy_image(self, image: StoredImage, path: str) -> None:
        """Copy a sample's image file into the folder in the background; the store copies it without a download."""
        self._release.copy_image(image, f"{self.name}/{path}")

    def upload_texts(self) -> None:
        """Upload the files of `open_text`, at the end of a part."""
        for name, opened in self._texts.items():
            opened.close()
            self.upload(name, self.local(name), "text/plain")

    def append_texts(self, part: Part) -> None:
        """Append what a part has in the files of `open_text`."""
        for name, opened in self._texts.items():
            opened.flush()
            with self.local(name).open("ab") as out:
                out.writelines(part.store.stream(f"{part.folder}{self.name}/{name}"))
            opened.seek(0, io.SEEK_END)

    def take(self, part: Part, path: str, target: str) -> None:
        """Take a file that a part has uploaded as the index file `target`; the store copies it without a download."""
        file = part.uploaded(f"{self.name}/{path}")
        self._release.take(part.folder + file.path, file._replace(path=f"{self.name}/{target}"))


class DatasetFormat(ABC):
    """One way to write the dataset. A subclass per file of `publishing/formats/`; `format_named` finds it."""

    reads_images: ClassVar[bool] = False
    """Whether `add` reads the bytes of every image. Where a format of the dataset does, they are read ahead, once for
    all formats."""

    def __init__(self, folder: FormatFolder) -> None:
        """Begin: nothing is written yet."""
        self.folder = folder

    @abstractmethod
    def add(self, sample: LabeledSample, image: StoredImage) -> None:
        """Take an accepted sample; rejected ones are not given to formats.

        `image.read()` returns the bytes of the image file. It raises `Missing` if the image is not in the store any
        more. Do not catch it: publishing reports the sample.
        """

    @abstractmethod
    def finish(self) -> None:
        """End: write what could not be written before all samples were known."""

    def pass_over(self, split: str, objects: int) -> None:  # noqa: B027 - few formats number anything
        """Count an accepted sample of an earlier part, before the first `add`.

        `objects` is the number of its objects and of its regions to ignore.
        """

    def part(self) -> dict[str, Any]:
        """End, in place of `finish`, where only a part of the samples was added; return JSON data for `join`."""
        return {}

    def join(self, content: Mapping[str, Any], part: Part) -> None:  # noqa: B027 - few formats keep anything
        """Take a part in place of its samples, in their order; `content` is what `part` returned there."""

    @abstractmethod
    def loading(self) -> str:
        """Return the format's section of the dataset card in Markdown, from `### Title` on, with code that loads it."""
