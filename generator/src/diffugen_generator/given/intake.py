"""Copies the user's own images into a dataset's store: each file is checked, hashed and copied.

An image's id is a hash of its file's bytes and of the text that it is read with. So a second run finds the image and
its labels in the store. A file that is not an upright RGB image is converted to one (`uprights`). A file that cannot be
labeled is reported with its reason; the run continues.
"""

from __future__ import annotations

import codecs
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
from diffugen_generator.given.image_sources import NO_PERMISSION, ImageSource, SourceFile
from diffugen_generator.given.upright import (
    CONVERSION_VERSION,
    UNREADABLE,
    UNSUPPORTED,
    UnusableError,
    Upright,
    upright,
)
from diffugen_generator.results import NO_CAPTION, REPEATED
from diffugen_generator.samples.documents import sealed
from diffugen_generator.samples.image_files import CONTENT_TYPES
from diffugen_generator.samples.recipes import IMAGE_SHA256
from diffugen_generator.store.protocol import JSON, Store

STAGE: Final = "given"
"""The one stage of a dataset of given images."""
_NOT_READ: Final = frozenset({".heic", ".heif"})
"""Images that Pillow cannot read."""
_JPEG: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp"})
ENDINGS: Final = _JPEG | {".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".avif"} | _NOT_READ
"""Files whose names end so are images. Other files are counted and not read."""
_CAPTION: Final = ".txt"
CAPTION_NOT_UTF8: Final = "CaptionNotUTF8"

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

    source: ImageSource
    store: Store
    prompt: str
    captions_only: bool = False
    """Skip images that have no caption."""
    ids: set[str] = field(default_factory=set)
    others: int = 0
    """Number of files that are neither images nor captions, by their names."""
    _decoding: Semaphore = field(default_factory=lambda: Semaphore(_DECODERS), repr=False)

    def files(self) -> list[SourceFile]:
        """Return the images, and what cannot be read, in order; count the other files in `others`."""
        found, texts = [], []
        for file in self.source.files():
            path = PurePosixPath(file.name)
            if path.suffix == _CAPTION:
                texts.append(path.with_suffix(""))
            elif file.reason or path.suffix.lower() in ENDINGS:
                found.append(file)
            else:
                self.others += 1
        described = {PurePosixPath(file.name).with_suffix("") for file in found}
        self.others += sum(text not in described for text in texts)
        return found

    def take(self, files: list[SourceFile]) -> Iterator[Given]:
        """Yield the result for each file, in order, when the image is in the store."""
        for given in in_order(self._take, files, workers=_READERS, window=_WINDOW):
            if given.format and given.sample.id in self.ids:
                yield Given(given.sample, reason=REPEATED)
            else:
                self.ids.add(given.sample.id)
                yield given

    def _open(self, given: SourceFile) -> tuple[bytes, Upright, str]:
        """Return the image's file, its upright form and its caption; raise `UnusableError` with the reason if not."""
        if given.reason:
            raise UnusableError(given.reason)
        if PurePosixPath(given.name).suffix.lower() in _NOT_READ:
            raise UnusableError(UNSUPPORTED)
        try:
            data = self.source.read(given.name)
            with self._decoding:
                kept = upright(data)
            caption = self._caption(given.name)
        except PermissionError:
            raise UnusableError(NO_PERMISSION) from None
        except (Missing, OSError):
            raise UnusableError(UNREADABLE) from None
        except UnicodeDecodeError:
            raise UnusableError(CAPTION_NOT_UTF8) from None
        if self.captions_only and not caption:
            raise UnusableError(NO_CAPTION)
        return data, kept, caption

    def _take(self, given: SourceFile) -> Given:
        name = given.name
        try:
            data, kept, caption = self._open(given)
        except UnusableError as unusable:
            return self._skipped(name, unusable.reason)
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
        """Return an image's caption: the text of `cat.txt` for `cat.png`; empty where there is no such file.

        Raises UnicodeDecodeError if the text is not UTF-8. A byte order mark is not part of it; with that of UTF-16,
        the text is read as UTF-16.
        """
        try:
            text = self.source.read(str(PurePosixPath(name).with_suffix(_CAPTION)))
        except Missing:
            return ""
        encoding = "utf-16" if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        return " ".join(text.decode(encoding).split())[:1000]

    @staticmethod
    def _skipped(name: str, reason: str) -> Given:
        return Given(Sample(address({"skipped": name}, 32), "", 0, 0, {"file": name}), reason=reason)
