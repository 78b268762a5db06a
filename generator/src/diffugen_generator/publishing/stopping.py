"""The end of publishing on request, as at SIGTERM."""

from __future__ import annotations

from collections.abc import Callable

from diffugen_generator.failures import Interrupted


def check_stop(stop: Callable[[], bool]) -> None:
    """Raise `Interrupted` where publishing is to stop."""
    if stop():
        raise Interrupted("publishing was stopped; the next try does it again")
