"""A console that shows what is in a text, and never does what a text says.

Names of files, prompts and captions come from other people. A terminal obeys escape sequences in them, and letters that
change the direction of writing can hide what follows. Such characters are shown as their codes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, without tab and newline
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"  # marks of direction, and without width
)


class PlainConsole(Console):
    """Rich's console, with control characters and marks of direction shown as codes (`\\x1b`, `\\u202e`).

    Characters that the stream's encoding does not have are shown as `?`.
    """

    def __init__(self, **options: Any) -> None:
        """Take the options of rich's console."""
        super().__init__(**options)
        if hasattr(self.file, "reconfigure"):
            self.file.reconfigure(errors="replace")

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a text, with codes in place of hidden characters."""
        for segment in super().render(renderable, options):
            if segment.control or not _HIDDEN.search(segment.text):
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)


def visible(text: str) -> str:
    """Return the text with codes in place of control characters and marks of direction."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
