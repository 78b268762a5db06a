"""Copies the user's own images into a dataset's store: each file is checked, hashed and copied.

An image's id is a hash of its file's bytes and of the text that it is read with. So a second run finds the image and
its labels in the store. A file that is not an upright RGB image is converted to one (`uprights`). A file that cannot be
labeled is reported with its reason; the run continues.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from threading import Semaphore
from typing import Any, Final

from diffugen_api import layout
from diffugen_api.plan import Sample, address, canonical
from diffugen_generator.bounded_pool import in_order
from diffugen_generator.failures import Missing
from diffugen_generator.given.upright import CONVERSION_VERSION, UNREADABLE, UNSUPPORTED, UnusableError, upright
from diffugen_generator.samples.documents import sealed
from diffugen_generator.samples.image_files import CONTENT_TYPES
from diffugen_generator.samples.recipes import IMAGE_SHA256
from diffugen_generator.store.protocol import JSON, Store

STAGE: Final = "given"
"""The one stage of a dataset of given images."""
_NOT_READ: Final = frozenset({".heic", ".heif"})
"""Images that Pillow cannot read."""
ENDINGS: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}) | _NOT_READ
"""File names with these endings are images; other files are skipped."""
REPEATED: Final = "RepeatedFile"

_READERS = 16
_DECODERS = 4
"""Image files that are decoded at the same time: one of 64 megapixels takes up to a GB of memory."""
_WINDOW = 64


@dataclass(frozen=True, slots=True)
class Given:
    """One file that was found."""

    sample: Sample
    format: str = ""
    """png, jpeg or webp; empty where the file is skipped."""
    width: int = 0
    height: int = 0
    reason: str = ""
    """Why the file is skipped, in CamelCase."""
    sha256: str = ""
    """SHA-256 of the file, in hex."""
    caption: str = ""
    """The text of the caption file; empty where there is none."""
    converted: Mapping[str, Any] = field(default_factory=dict)
    """The original format, if the image is stored in another one (`Upright.converted`)."""

    @property
    def file(self) -> str:
        """The file's path, relative to the folder or bucket of the command."""
        return self.sample.variables["file"]

    def row(self) -> dict[str, Any]:
        """Return the file's fields for its line of the manifest; empty for a skipped file."""
        if self.reason:
            return {}
        return {
            "file": self.file,
            "sha256": self.sha256,
            **({"caption": self.caption} if self.caption else {}),
            **({"converted": dict(self.converted)} if self.converted else {}),
        }


@dataclass
class Intake:
    """Copies the images of `source` into `store`, to be read with `prompt`, or each with its own caption."""

    source: Store
    store: Store
    prompt: str
    ids: set[str] = field(default_factory=set)
    _decoding: Semaphore = field(default_factory=lambda: Semaphore(_DECODERS), repr=False)

    def names(self) -> list[str]:
        """Return the images' paths, sorted."""
        return [key for key in self.source.list("") if PurePosixPath(key).suffix.lower() in ENDINGS]

    def take(self, names: list[str]) -> Iterator[Given]:
        """Yield the result for each name, in order, when the image is in the store."""
        for given in in_order(self._take, names, workers=_READERS, window=_WINDOW):
            if given.format and given.sample.id in self.ids:
                yield Given(given.sample, reason=REPEATED)
            else:
                self.ids.add(given.sample.id)
                yield given

    def _take(self, name: str) -> Given:
        if PurePosixPath(name).suffix.lower() in _NOT_READ:
            return self._skipped(name, UNSUPPORTED)
        try:
            data = self.source.read(name)
            with self._decoding:
                kept = upright(data)
        except Missing:
            return self._skipped(name, UNREADABLE)
        except UnusableError as unusable:
            return self._skipped(name, unusable.reason)
        caption = self._caption(name)
        prompt = caption or self.prompt
        digest = hashlib.sha256(data).hexdigest()
        decided: dict[str, Any] = {"file": digest, "prompt": prompt}
        if kept.converted:
            decided["converted"] = CONVERSION_VERSION
        sample_id = address(decided, 32)
        sample = Sample(sample_id, prompt, int(sample_id[:15], 16), 0, {"file": name})
        recipe = layout.recipe(STAGE, sample_id)
        if not self.store.exists(recipe):
            file = kept.file()
            self.store.write(layout.image(STAGE, sample_id, kept.format), file, CONTENT_TYPES[kept.format])
            content = {
                "id": sample_id,
                "sha256": digest,
                IMAGE_SHA256: hashlib.sha256(file).hexdigest(),
                "prompt": prompt,
                **({"converted": kept.converted} if kept.converted else {}),
            }
            self.store.write(recipe, canonical(sealed(content)) + b"\n", JSON)
        return Given(
            sample,
            kept.format,
            kept.width,
            kept.height,
            sha256=digest,
            caption=caption,
            converted=kept.converted,
        )

    def _caption(self, name: str) -> str:
        """Return an image's caption: the text of `cat.txt` for `cat.png`; empty where there is no such file."""
        try:
            text = self.source.read(str(PurePosixPath(name).with_suffix(".txt")))
        except Missing:
            return ""
        return " ".join(text.decode(errors="replace").split())[:1000]

    @staticmethod
    def _skipped(name: str, reason: str) -> Given:
        return Given(Sample(address({"skipped": name}, 32), "", 0, 0, {"file": name}), reason=reason)
