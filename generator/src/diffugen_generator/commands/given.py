"""Pictures that somebody has already, taken into a dataset's store: each file checked, hashed and copied as it is.

A picture's id is a hash of its file's bytes and of the text that it is read with, so a second run finds it there, and
its labels too. A file that cannot be labelled so that every reader sees the same (it is broken, rotated by its EXIF
tag, or not RGB) is told with its reason, and ends nothing.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from PIL import Image, UnidentifiedImageError

from diffugen_api import layout
from diffugen_api.plan import Sample, address, canonical
from diffugen_generator.failures import Missing
from diffugen_generator.flow import in_order
from diffugen_generator.stages.pictures import CONTENT_TYPES
from diffugen_generator.store import JSON, Store

STAGE: Final = "given"
"""The one stage of a dataset of given pictures."""
ENDINGS: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic"})
"""What is taken for a picture, by its name; other files are passed over."""
LEAST = 16
"""Pixels of the shorter side."""
MOST = 64_000_000
"""Pixels of a picture: 64 megapixels, 200 MB while it is looked at."""

UNREADABLE, NOT_RGB, ROTATED = "Unreadable", "NotRGB", "RotatedByExif"
UNSUPPORTED, BAD_SIZE, REPEATED = "UnsupportedFormat", "UnsupportedSize", "RepeatedFile"

_READERS = 16
_WINDOW = 64
_ORIENTATION = 0x0112
"""EXIF's tag; 1 is upright."""
_UPRIGHT = 1


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

    @property
    def file(self) -> str:
        """The file's path below what was asked for."""
        return self.sample.variables["file"]


@dataclass
class Intake:
    """Takes the pictures of `source` into `store`, to be read with `prompt`, or each with its own caption."""

    source: Store
    store: Store
    prompt: str
    ids: set[str] = field(default_factory=set)

    def names(self) -> list[str]:
        """Return the pictures' paths, sorted."""
        return [key for key in self.source.list("") if PurePosixPath(key).suffix.lower() in ENDINGS]

    def take(self, names: list[str]) -> Iterator[Given]:
        """Yield what was found of each name, in their order, once it is in the store."""
        for given in in_order(self._take, names, workers=_READERS, window=_WINDOW):
            if given.format and given.sample.id in self.ids:
                yield Given(given.sample, reason=REPEATED)
            else:
                self.ids.add(given.sample.id)
                yield given

    def _take(self, name: str) -> Given:
        try:
            data = self.source.read(name)
        except Missing:
            return self._skipped(name, UNREADABLE)
        found = _reason_or_kind(data)
        if isinstance(found, str):
            return self._skipped(name, found)
        image_format, width, height = found
        prompt = self._caption(name) or self.prompt
        digest = hashlib.sha256(data).hexdigest()
        sample_id = address({"file": digest, "prompt": prompt}, 32)
        sample = Sample(sample_id, prompt, int(sample_id[:15], 16), 0, {"file": name})
        recipe = layout.recipe(STAGE, sample_id)
        if not self.store.exists(recipe):
            self.store.write(layout.image(STAGE, sample_id, image_format), data, CONTENT_TYPES[image_format])
            self.store.write(recipe, canonical({"sha256": digest, "prompt": prompt}) + b"\n", JSON)
        return Given(sample, image_format, width, height)

    def _caption(self, name: str) -> str:
        """Return the text beside a picture: `cat.txt` beside `cat.png`; empty where there is none."""
        try:
            text = self.source.read(str(PurePosixPath(name).with_suffix(".txt")))
        except Missing:
            return ""
        return " ".join(text.decode(errors="replace").split())[:1000]

    @staticmethod
    def _skipped(name: str, reason: str) -> Given:
        return Given(Sample(address({"skipped": name}, 32), "", 0, 0, {"file": name}), reason=reason)


def _reason_or_kind(data: bytes) -> str | tuple[str, int, int]:
    """Return why a file is skipped, or its format, width and height."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind, (width, height), mode = (image.format or "").lower(), image.size, image.mode
            orientation = image.getexif().get(_ORIENTATION, _UPRIGHT)
            if kind not in CONTENT_TYPES or getattr(image, "n_frames", 1) > 1:
                return UNSUPPORTED
            if width * height > MOST or min(width, height) < LEAST:
                return BAD_SIZE
            if mode != "RGB":
                return NOT_RGB
            if orientation != _UPRIGHT:
                return ROTATED
            image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError):
        return UNREADABLE
    return kind, width, height
