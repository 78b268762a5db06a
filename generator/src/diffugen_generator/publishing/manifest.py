"""`manifest.jsonl.gz`: a line for every sample of the dataset, accepted or rejected, with the reason.

It has everything that the formats have, and everything that is needed to draw the image again: prompt and weights of
its words, seed, source, the model with its digest, the settings, the embeddings, the number type, and the versions of
the libraries. Recipes of earlier versions lack the last three. The same content of the store always gives the same
bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final

from diffugen_api.plan import canonical
from diffugen_generator.bounded_pool import BoundedPool
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.parts import Part
from diffugen_generator.publishing.published import lines_of
from diffugen_generator.publishing.release import Release
from diffugen_generator.publishing.stored_images import StoredImage

PATH = "manifest.jsonl.gz"

_TOGETHER = 1 << 17
"""Bytes of lines that are compressed at once, in a thread: a call for each line would wait for other threads each time.
The result is the same for any number of bytes."""

_FROM_RECIPE: Final = ("embeddings", "dtype", "device", "versions")


class Manifest:
    """Writes the manifest."""

    def __init__(self, release: Release, models: Mapping[str, str]) -> None:
        """Begin an empty manifest; `models` has the URI of each stage's model, with the commit of a repository."""
        self._release = release
        self._models = models
        self._file = release.open_binary(PATH)
        # zlib's own gzip framing: time 0, no file name
        self._squeeze = zlib.compressobj(6, zlib.DEFLATED, wbits=31)
        self._lines = bytearray()
        self._writer = release.open_files.enter_context(BoundedPool(1))

    def add(self, sample: LabeledSample, row: Mapping[str, Any], image: StoredImage) -> None:
        """Write a line for a sample: its row, the SHA-256 of the image, and what it was drawn with by its recipe."""
        line = dict(row)
        if sample.drawing:
            line["model"] = self._models[sample.stage]
        if image.sha256:
            line["imageSha256"] = image.sha256
        line |= {name: image.recipe[name] for name in _FROM_RECIPE if name in image.recipe}
        self.add_row(line)

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Write a line as it is."""
        self._add_line(canonical(row))

    def join(self, part: Part) -> None:
        """Write the lines of a part, whose `finish` uploaded them."""
        key = part.folder + PATH
        for line in lines_of(key, part.store.stream(key)):
            self._add_line(line)

    def _add_line(self, line: bytes) -> None:
        self._lines += line
        self._lines += b"\n"
        if len(self._lines) >= _TOGETHER:
            self._compress()

    def finish(self) -> None:
        """Upload the manifest."""
        self._compress()
        self._writer.finish()
        self._file.write(self._squeeze.flush())
        self._file.close()
        self._release.upload(PATH, self._release.scratch / PATH, "application/gzip")

    def _compress(self) -> None:
        lines, self._lines = self._lines, bytearray()
        self._writer.submit(self._write, lines)

    def _write(self, lines: bytearray) -> None:
        self._file.write(self._squeeze.compress(lines))
