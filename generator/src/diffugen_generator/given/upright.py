"""Converts images to the form that all readers show in the same way: upright, RGB, 8 bits.

Readers differ on other forms. Ultralytics and OpenCV turn an image by its EXIF tag; PIL in torchvision's datasets does
not. Some readers show the color under a transparent pixel. So a file that all readers show in the same way is stored
byte for byte. Any other file is stored as a PNG of what people see: turned upright, on a white background.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from diffugen_generator.samples.image_files import CONTENT_TYPES, encode

CONVERSION_VERSION: Final = 1
"""Raised when the same file is converted to other pixels."""
LEAST: Final = 16
"""Pixels of the shorter side."""
MOST: Final = 64_000_000
"""Pixels of an image: 64 megapixels, which take 200 MB in memory."""

UNREADABLE, UNSUPPORTED, BAD_SIZE = "Unreadable", "UnsupportedFormat", "UnsupportedSize"

# Named one by one: Pillow starts other programs for some of the formats that it knows.
_FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
_CAMERA: Final = "MPO"
"""Pillow's name for a JPEG file with more than one image in it: readers show the first."""
_ORIENTATION: Final = 0x0112
"""EXIF's tag; with values 2 to 8 the image is turned or mirrored, with any other value it is upright."""
_TURNED: Final = range(2, 9)
_NO_RANGE: Final = frozenset({"I", "F"})
"""Modes that do not define which values are black and white."""


class UnusableError(Exception):
    """A file that cannot be labeled; `reason` is in CamelCase."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Upright:
    """A file as it is stored."""

    format: str
    """png, jpeg or webp."""
    width: int
    height: int
    converted: Mapping[str, Any] = field(default_factory=dict)
    """The original file's `format`, `mode` (Pillow's) and `orientation`; empty if it is stored byte for byte."""
    _data: bytes = b""
    _pixels: NDArray[np.uint8] | None = None

    def file(self) -> bytes:
        """Return the file to store."""
        return self._data if self._pixels is None else encode(self._pixels, self.format)


def upright(data: bytes) -> Upright:
    """Read an image's file; raise `UnusableError` where it is broken, has several frames, or is too small or large."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return _upright(image, data)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError):
        raise UnusableError(UNREADABLE) from None


def _upright(image: Image.Image, data: bytes) -> Upright:
    kind = "jpeg" if image.format == _CAMERA else str(image.format).lower()
    if image.format != _CAMERA and getattr(image, "n_frames", 1) > 1:
        raise UnusableError(UNSUPPORTED)
    if image.width * image.height > MOST or min(image.size) < LEAST:
        raise UnusableError(BAD_SIZE)
    if image.mode in _NO_RANGE:
        raise UnusableError(UNSUPPORTED)
    orientation, mode = _orientation(image), image.mode
    image.load()
    if mode == "RGB" and orientation not in _TURNED and kind in CONTENT_TYPES:
        return Upright(kind, *image.size, _data=data)
    pixels = np.asarray(_over_white(ImageOps.exif_transpose(image) if orientation in _TURNED else image))
    height, width = pixels.shape[:2]
    was = {"format": kind, "mode": mode, "orientation": orientation}
    return Upright("png", width, height, was, _pixels=pixels)


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, struct.error):
        return 1  # a broken tag turns nothing
    return found if isinstance(found, int) and found in _TURNED else 1


def _over_white(image: Image.Image) -> Image.Image:
    """Return an image of any mode in RGB."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
