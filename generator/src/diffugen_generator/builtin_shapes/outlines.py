"""The outlines and patterns of the objects that `builtin://shapes` was trained on, as signed distances."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from diffugen_generator.builtin_shapes.vocabulary import SIZE

AREAS: Final = (3.66, 3.39, 2.69, 2.84)
"""Area of each class in squares of its radius, as `outlines` takes it."""

Floats = NDArray[np.float32]


def outlines(
    kind: int, *, radius: float, x: NDArray[np.float64], y: NDArray[np.float64], turn: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Masks [n, 64, 64] of class `kind`; radius and centres `x`, `y` [n] in pixels, `turn` [n] in radians."""
    count = len(x)
    distance, _, _ = shapes(np.full(count, kind), np.full(count, radius), x, y, turn)
    return np.asarray(distance <= 0.0)


def shapes(
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
