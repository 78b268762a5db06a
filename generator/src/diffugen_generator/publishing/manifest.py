"""`manifest.jsonl.gz`: a line for every sample of the dataset, accepted or rejected, with the reason.

It has everything that the formats have. The same content of the store always gives the same bytes.
"""

from __future__ import annotations

import zlib

from diffugen_api.plan import canonical
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.release import Release
from diffugen_generator.publishing.stored_images import StoredImage

PATH = "manifest.jsonl.gz"


class Manifest:
    """Writes the manifest."""

    def __init__(self, release: Release) -> None:
        """Begin an empty manifest."""
        self._release = release
        self._file = release.open_binary(PATH)
        # zlib's own gzip framing: time 0, no file name
        self._squeeze = zlib.compressobj(6, zlib.DEFLATED, wbits=31)

    def add(self, sample: LabeledSample, image: StoredImage) -> None:
        """Write a line for a sample; that of an accepted one has the SHA-256 of its image file."""
        row = sample.row()
        if image.sha256:
            row["imageSha256"] = image.sha256
        self._file.write(self._squeeze.compress(canonical(row) + b"\n"))

    def finish(self) -> None:
        """Upload the manifest."""
        self._file.write(self._squeeze.flush())
        self._file.close()
        self._release.upload(PATH, self._release.scratch / PATH, "application/gzip")
