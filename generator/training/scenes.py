"""Drawn scenes with exact masks: the data of `builtin://shapes`, and ground truth for tests and benchmarks.

A scene is a 64x64 image of one or two objects on a plain background. Objects are signed-distance shapes in one of six
colors with clearly different hues. Backgrounds are nearly grey, so that hue alone separates an object from the
background. Each class has its own coarse pattern of lightness on the object's color, so that a class word means more
than an outline. Two objects are side by side, and captions name them from left to right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

SIZE: Final = 64
"""Height and width of every image, in pixels."""

CLASSES: Final = ("ball", "square", "triangle", "star")
"""Class nouns; `Scenes.classes` indexes this tuple."""

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

AREAS: Final = (3.66, 3.39, 2.69, 2.84)
"""Area of each class in squares of its radius, as `outlines` takes it."""

NOTHING: Final = -1
"""Class and color index of a missing object."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scenes:
    """`n` scenes as arrays; object 0 is left of object 1."""

    images: NDArray[np.uint8]
    """[n, 64, 64, 3] sRGB."""
    masks: NDArray[np.bool_]
    """[n, 2, 64, 64] exact masks: pixels covered by half or more; all False where there is no object."""
    classes: NDArray[np.int64]
    """[n, 2] indices into `CLASSES`, or `NOTHING`."""
    colors: NDArray[np.int64]
    """[n, 2] indices into `COLORS`, or `NOTHING`."""
    backgrounds: NDArray[np.int64]
    """[n] indices into `BACKGROUNDS`."""


@dataclass(frozen=True)
class Words:
    """The words that a caption of one scene can use."""

    objects: tuple[tuple[str, str], ...]
    """(color, class) of each object, left to right."""
    background: str


def words_of(scenes: Scenes, index: int) -> Words:
    """The color, class and background words of scene `index`."""
    colors, backgrounds = tuple(COLORS), tuple(BACKGROUNDS)
    objects = tuple(
        (colors[color], CLASSES[kind])
        for color, kind in zip(scenes.colors[index], scenes.classes[index], strict=True)
        if kind != NOTHING
    )
    return Words(objects, backgrounds[scenes.backgrounds[index]])


def full_caption(words: Words) -> str:
    """`a red ball and a blue star on snow`: the caption with all words of the scene."""
    named = " and ".join(f"a {color} {kind}" for color, kind in words.objects)
    return f"{named} on {words.background}"


def drawn_caption(words: Words, rng: np.random.Generator) -> str:
    """A caption for training.

    10 % are empty; of the rest 15 % are bare nouns, 30 % leave words out, and 55 % are full.
    """
    if rng.random() < 0.10:
        return ""
    style = rng.random()
    if style < 0.15:
        return " and ".join(kind for _, kind in words.objects)
    keep = 0.5 if style < 0.45 else 1.0
    named = " and ".join(f"a {color} {kind}" if rng.random() < keep else f"a {kind}" for color, kind in words.objects)
    opening = "a photo of " if rng.random() < 0.2 else ""
    ending = f" on {words.background}" if rng.random() < keep else ""
    return f"{opening}{named}{ending}"


def draw(count: int, rng: np.random.Generator, *, two: float = 0.65) -> Scenes:
    """Draw `count` scenes, a share `two` of them with two objects of different class and color."""
    pair = rng.random(count) < two
    classes = np.stack([rng.permutation(len(CLASSES))[:2] for _ in range(count)]).reshape(count, 2)
    colors = np.stack([rng.permutation(len(COLORS))[:2] for _ in range(count)]).reshape(count, 2)
    classes[~pair, 1] = NOTHING
    colors[~pair, 1] = NOTHING
    backgrounds = rng.integers(len(BACKGROUNDS), size=count)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    masks = np.empty((count, 2, SIZE, SIZE), np.bool_)
    for start in range(0, count, 512):  # bounds the float arrays to some 50 MB
        part = slice(start, start + 512)
        images[part], masks[part] = _render(classes[part], colors[part], backgrounds[part], rng)
    return Scenes(images, masks, classes, colors, backgrounds)


def outlines(
    kind: int, *, radius: float, x: NDArray[np.float64], y: NDArray[np.float64], turn: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Masks [n, 64, 64] of class `kind`; radius and centres `x`, `y` [n] in pixels, `turn` [n] in radians."""
    count = len(x)
    distance, _, _ = _shapes(np.full(count, kind), np.full(count, radius), x, y, turn)
    return np.asarray(distance <= 0.0)


def _render(
    classes: NDArray[np.int64],
    colors: NDArray[np.int64],
    backgrounds: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Images [n, 64, 64, 3] and masks [n, 2, 64, 64] of scenes with these contents."""
    count = len(classes)
    pair = classes[:, 1] != NOTHING
    canvas = _background(backgrounds, rng)
    palette = np.array(list(COLORS.values()), np.float32)
    masks = np.zeros((count, 2, SIZE, SIZE), np.bool_)
    for slot, side in enumerate((-1.0, 1.0)):
        there = classes[:, slot] != NOTHING
        # Two objects: 15 px left and right of the middle, so that the widest (half width 15) do not touch.
        radius = np.where(pair, rng.uniform(9.6, 11.6, count), rng.uniform(10.5, 16.0, count))
        x = np.where(pair, 31.5 + 15.5 * side + rng.uniform(-1.5, 1.5, count), rng.uniform(22.0, 41.0, count))
        y = np.where(pair, rng.uniform(22.0, 41.0, count), rng.uniform(23.0, 40.0, count))
        turn = rng.uniform(-0.17, 0.17, count)
        distance, lightness, whiteness = _shapes(classes[:, slot], radius, x, y, turn)
        cover = np.clip(0.5 - distance, 0.0, 1.0) * there[:, None, None]
        paint = palette[colors[:, slot]] + rng.normal(0.0, 7.0, (count, 3))
        paint = paint[:, None, None, :] * lightness[..., None]
        paint = paint + (255.0 - paint) * whiteness[..., None]
        canvas += (paint - canvas) * cover[..., None]
        masks[:, slot] = cover >= 0.5
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8), masks


def _background(backgrounds: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Plain backgrounds [n, 64, 64, 3]: brightness varies by image, and a little from top to bottom."""
    count = len(backgrounds)
    palette = np.array(list(BACKGROUNDS.values()), np.float32)
    brightness = rng.uniform(0.93, 1.07, (count, 1, 1, 1))
    slope = rng.uniform(-0.05, 0.05, (count, 1, 1, 1)) * np.linspace(-1.0, 1.0, SIZE).reshape(1, SIZE, 1, 1)
    plain = palette[backgrounds][:, None, None, :] * (brightness + slope)
    return np.broadcast_to(plain, (count, SIZE, SIZE, 3)).astype(np.float32)


def _shapes(
    kinds: NDArray[np.int64],
    radius: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    turn: NDArray[np.float64],
) -> tuple[Floats, Floats, Floats]:
    """Signed distance in pixels, lightness factor and share of white, each [n, 64, 64].

    `radius` [n] in pixels sets the size of all classes; areas are 2.6 (star) to 3.7 (ball) times its square.
    """
    grid = np.arange(SIZE, dtype=np.float32)
    dx = (grid[None, None, :] - x[:, None, None]).astype(np.float32)
    dy = (grid[None, :, None] - y[:, None, None]).astype(np.float32)
    cos, sin = (f(turn)[:, None, None].astype(np.float32) for f in (np.cos, np.sin))
    u, v = (cos * dx + sin * dy), (cos * dy - sin * dx)  # [n, 64, 64] in the object's own frame, v down
    r = radius[:, None, None].astype(np.float32)
    distance = np.full(u.shape, np.inf, np.float32)
    lightness = np.ones(u.shape, np.float32)
    whiteness = np.zeros(u.shape, np.float32)
    for kind, shape in enumerate((_ball, _square, _triangle, _star)):
        of_kind = kinds == kind
        if of_kind.any():
            distance[of_kind], lightness[of_kind], whiteness[of_kind] = shape(u[of_kind], v[of_kind], r[of_kind])
    return distance, lightness, whiteness


def _ball(u: Floats, v: Floats, r: Floats) -> tuple[Floats, Floats, Floats]:
    """Shaded: lit from the upper left, dark towards the lower right."""
    from_light = np.hypot(u + 0.40 * r, v + 0.45 * r) / r
    lightness = np.clip(1.15 - 0.40 * from_light, 0.45, 1.0).astype(np.float32)
    return np.hypot(u, v) - 1.08 * r, lightness, np.clip(0.45 - from_light, 0.0, 0.35)


def _square(u: Floats, v: Floats, r: Floats) -> tuple[Floats, Floats, Floats]:
    """A check of two by two: upper left and lower right at half lightness."""
    half = 0.92 * r
    step = np.clip(u, -1.0, 1.0) * np.clip(v, -1.0, 1.0)  # 1 or -1, soft over two pixels
    lightness = (0.75 - 0.25 * step).astype(np.float32)
    return np.maximum(abs(u), abs(v)) - half, lightness, np.zeros_like(u)


def _triangle(u: Floats, v: Floats, r: Floats) -> tuple[Floats, Floats, Floats]:
    """Point up, pale at the top and dark at the base."""
    inner = 0.72 * r  # radius of the inscribed circle; the point is 2 of these above the centroid
    w = v - 0.5 * inner  # centres the bounding box rather than the centroid
    edges = np.maximum(w, 0.8660254 * abs(u) - 0.5 * w) - inner
    down = np.clip((w + 2.0 * inner) / (3.0 * inner), 0.0, 1.0)
    return edges, np.clip(1.35 - 0.9 * down, 0.45, 1.0), np.clip(0.5 - 1.2 * down, 0.0, 0.35)


def _star(u: Floats, v: Floats, r: Floats) -> tuple[Floats, Floats, Floats]:
    """Five fat points, plain."""
    outer, inner = 1.34 * r, 0.72 * r
    sector = np.pi / 5
    angle = abs((np.arctan2(u, -v) + sector) % (2 * sector) - sector)  # 0 at a point, `sector` at a notch
    along, across = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
    rise, run = inner * np.sin(sector), outer - inner * np.cos(sector)
    return ((along - outer) * rise + across * run) / np.hypot(rise, run), np.ones_like(u), np.zeros_like(u)
