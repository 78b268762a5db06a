"""The words of the captions that `builtin://shapes` was trained on, and the colors that they mean."""

from __future__ import annotations

from typing import Final

SIZE: Final = 64
"""Height and width of every image, in pixels."""

CLASSES: Final = ("ball", "square", "triangle", "star")
"""Class nouns."""

COLORS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (225, 40, 40),
    "yellow": (235, 205, 30),
    "green": (40, 180, 60),
    "cyan": (30, 200, 210),
    "blue": (45, 75, 230),
    "purple": (175, 50, 215),
}
"""Object colors, sRGB 0..255. Neighbours in hue are at least 47 degrees apart."""

BACKGROUNDS: Final[dict[str, tuple[int, int, int]]] = {
    "snow": (232, 236, 240),
    "sand": (205, 190, 160),
    "stone": (128, 128, 126),
    "night": (34, 36, 46),
}
"""Background colors, sRGB 0..255; saturation at most 0.26."""
