"""Finds a font that has the letters of a text, for images with names of classes and prompts.

The font that Pillow brings has the letters of ASCII. For other letters the fonts of the system are searched. Where no
font has a letter, its base letter is written (`u` for `ü`), or its code point (`U+7403`), never an empty box.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageFont

_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.fonts",
    "~/.local/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "C:/Windows/Fonts",
)
_ENDINGS = frozenset({".ttf", ".otf", ".ttc"})
_MOST_FONTS = 300
_NO_LETTER = "\U0010ffff"
"""A code point that no font has: it shows what a font draws for a missing letter."""
_PROBE_SIZE = 16


def writable(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return the text as it can be written, and a font of `size` pixels that has all of its letters."""
    missing = frozenset(letter for letter in text if not letter.isascii())
    if not missing:
        return text, own_font(size)
    if (path := _font_with(missing)) is not None:
        return text, _system_font(path, size)
    written = "".join(letter if letter.isascii() or _own_has(letter) else _spelled(letter) for letter in text)
    return written, own_font(size)


@cache
def own_font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font. Raises TypeError if Pillow was built without FreeType."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType")
    return font


@cache
def _system_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=1024)
def _font_with(letters: frozenset[str]) -> str | None:
    """Return the first font of the system that has the letters, and those of ASCII; None if there is none."""
    if all(map(_own_has, letters)):
        return None
    for path in _system_fonts():
        try:
            font = ImageFont.truetype(path, _PROBE_SIZE)
        except OSError:  # not a font that FreeType reads
            continue
        if all(_has(font, letter) for letter in {*letters, "a"}):
            return path
    return None


@cache
def _system_fonts() -> tuple[str, ...]:
    """Return the paths of the system's fonts; upright sans-serif ones first."""
    found = [
        path
        for folder in map(Path, _FOLDERS)
        for path in folder.expanduser().rglob("*")
        if path.suffix.lower() in _ENDINGS
    ]

    def plainness(path: Path) -> tuple[bool, bool, str]:
        name = path.stem.lower()
        slanted = any(word in name for word in ("bold", "italic", "oblique", "light", "thin", "black", "condensed"))
        return slanted, "sans" not in name, str(path)

    return tuple(str(path) for path in sorted(found, key=plainness)[:_MOST_FONTS])


@cache
def _own_has(letter: str) -> bool:
    return _has(own_font(_PROBE_SIZE), letter)


def _has(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    if letter.isspace():
        return True
    shape, missing = font.getmask(letter), font.getmask(_NO_LETTER)
    return shape.size != missing.size or bytes(shape) != bytes(missing)


def _spelled(letter: str) -> str:
    base = unicodedata.normalize("NFKD", letter)[0]
    return base if base.isascii() and base.isprintable() else f"U+{ord(letter):04X}"
