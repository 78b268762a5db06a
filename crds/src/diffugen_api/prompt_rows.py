"""The rows of a prompts file, as the plan uses them: checked, each once, and read anew for every pass.

The rows themselves stay in a file, so a million of them need no memory. Only what the checks of a spec need is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from diffugen_api.templates import Template

MOST_ROWS: Final = 1_000_000
"""The most rows of a prompts file."""
MOST_EXAMPLES: Final = 20_000
"""The most rows that are kept for checks of the whole spec."""


class PromptRow(NamedTuple):
    """One row: a prompt, or values that fill templates."""

    prompt: str
    """The prompt as it is drawn; empty if the values fill templates."""
    values: Mapping[str, str]
    """The values of variables, by name. With a prompt they are recorded and change nothing."""


@dataclass(frozen=True, slots=True)
class PromptRows:
    """All rows of a prompts file."""

    read: Callable[[], Iterator[PromptRow]]
    """Starts a new pass over the rows."""
    sha256: str
    """SHA-256 in hex of the file as it was read."""
    digest: str
    """SHA-256 in hex of the rows that are used; it does not depend on the file's format or compression."""
    prompts: int = 0
    """The number of rows with a prompt."""
    fills: Mapping[int, int] = field(default_factory=dict)
    """The number of rows that fill a template, by the template's index."""
    examples: Sequence[PromptRow] = ()
    """The first rows, about `MOST_EXAMPLES`; the first one with a prompt and the first one that fills each template are
    among them."""
    complete: bool = True
    """Whether `examples` has every row."""
    warnings: Sequence[str] = ()
    """Sentences about the file, such as its duplicates."""

    @property
    def count(self) -> int:
        """The number of prompts that the rows make."""
        return self.prompts + sum(self.fills.values())


def fills(values: Mapping[str, str], template: Template) -> bool:
    """Return whether the values of a row fill a template: it has fields, and each has a value."""
    return bool(template.fields) and all(name in values for name in template.fields)
