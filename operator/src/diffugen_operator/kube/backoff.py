"""Exponential back-off: the pause before the next try."""

from __future__ import annotations

_MOST_DOUBLINGS = 32
"""Keeps the power a finite number, however many failures there were."""


def backoff(failures: int, *, base: float, limit: float) -> float:
    """Return the pause in seconds after so many failures in a row (1 or more): base, doubled each time, up to limit."""
    return min(limit, base * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))


def jittered(pause: float, fraction: float) -> float:
    """Return between half of the pause and all of it, for a random fraction from 0 to 1."""
    return pause * (0.5 + fraction / 2)
