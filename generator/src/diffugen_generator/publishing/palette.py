"""Colors of classes: twelve distinct ones, then steps of the golden angle around the color wheel."""

from __future__ import annotations

import colorsys

Color = tuple[int, int, int]

_FIRST: tuple[Color, ...] = (
    (255, 64, 129),
    (0, 200, 255),
    (255, 193, 7),
    (118, 255, 3),
    (213, 128, 255),
    (255, 112, 32),
    (29, 233, 182),
    (255, 255, 141),
    (140, 158, 255),
    (255, 138, 128),
    (178, 223, 90),
    (224, 224, 224),
)
_GOLDEN = 0.618033988749895


def color_of(class_id: int) -> Color:
    """Return the color of a class id, bright enough for dark text on it."""
    if class_id < len(_FIRST):
        return _FIRST[class_id]
    red, green, blue = colorsys.hsv_to_rgb((class_id * _GOLDEN) % 1, 0.55, 1)
    return round(red * 255), round(green * 255), round(blue * 255)
