"""Python's search for garbage in cycles, made rare: most of what a command makes stays, or is in no cycle."""

from __future__ import annotations

import gc

_OBJECTS = 20_000
"""New objects until the next search; Python's own number is 700, or 2,000."""


def search_garbage_rarely() -> None:
    """Search rarely from now on, in the whole process.

    With Python's own number, the searches take a sixth of the time in which torch and diffusers are imported, and 6 %
    of the time of publishing, where a sample is hundreds of objects.
    """
    gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
