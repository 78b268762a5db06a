"""Draws the loss curve: the loss of each step, its moving mean, and the evaluations. No torch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageDraw

_WIDTH, _HEIGHT = 960, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 24, 40, 48
_INK: Final = (40, 44, 52)
_GRID: Final = (226, 229, 234)
_STEP: Final = (188, 208, 232)
_MEAN: Final = (38, 98, 178)
_EVALUATION: Final = (200, 82, 30)
_TICKS: Final = 5
_WINDOW: Final = 25
"""Number of steps in the moving mean."""


def loss_curve(losses: Sequence[float], evaluations: Sequence[tuple[int, float]], title: str) -> bytes:
    """Return a PNG of the losses of steps 1, 2, …, and of the evaluations (step, loss)."""
    image = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    everything = [*losses, *(loss for _, loss in evaluations)] or [0.0]
    low, high = 0.0, max(everything) * 1.05 or 1.0
    last = max(len(losses), *(step for step, _ in evaluations), 1) if evaluations else max(len(losses), 1)

    def at(step: float, loss: float) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / last
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (loss - low) / (high - low)
        return x, y

    for tick in range(_TICKS + 1):
        loss, step = low + (high - low) * tick / _TICKS, last * tick / _TICKS
        draw.line([at(0, loss), at(last, loss)], fill=_GRID)
        draw.text((8, at(0, loss)[1] - 6), f"{loss:.3f}", fill=_INK)
        draw.text((at(step, low)[0] - 10, _HEIGHT - _BOTTOM + 8), f"{step:.0f}", fill=_INK)
    _line(draw, [at(step, loss) for step, loss in enumerate(losses, start=1)], _STEP, 1)
    _line(draw, [at(step, loss) for step, loss in enumerate(moving_mean(losses, _WINDOW), start=1)], _MEAN, 2)
    points = [at(step, loss) for step, loss in evaluations]
    _line(draw, points, _EVALUATION, 2)
    for x, y in points:
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_EVALUATION)
    draw.text((_LEFT, 8), title, fill=_INK)
    keys = (("step", _STEP), (f"mean of {_WINDOW} steps", _MEAN), ("evaluation", _EVALUATION))
    for number, (name, color) in enumerate(keys):
        x = _LEFT + number * 160
        draw.line([(x, 30), (x + 24, 30)], fill=color, width=3)
        draw.text((x + 32, 24), name, fill=_INK)
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


def moving_mean(values: Sequence[float], window: int) -> list[float]:
    """Return for each value the mean of the last `window` values; at the beginning there are fewer."""
    means, total = [], 0.0
    for number, value in enumerate(values):
        total += value
        if number >= window:
            total -= values[number - window]
        means.append(total / min(number + 1, window))
    return means


def _line(
    draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], color: tuple[int, int, int], width: int
) -> None:
    if len(points) > 1:
        draw.line(points, fill=color, width=width)
