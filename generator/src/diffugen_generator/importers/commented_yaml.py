"""Writes YAML with comments. PyYAML cannot: so this module writes mappings and lists, and PyYAML the scalars."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

Path = tuple[str | int, ...]
"""Where a value is in a document: keys of mappings and numbers of list entries."""
_WIDTH = 110


def dump(document: Mapping[str, Any], comments: Mapping[Path, Sequence[str]], header: Sequence[str] = ()) -> str:
    """Return a document as YAML, each comment above its value.

    `header` comes first: a line that begins with a blank is kept as it is, others are wrapped.
    """
    lines = [line for text in header for line in (_wrapped(text, 0) if text else ["#"])]
    lines += _mapping(document, (), 0, comments)
    return "\n".join(lines) + "\n"


def _mapping(data: Mapping[str, Any], path: Path, indent: int, comments: Mapping[Path, Sequence[str]]) -> Iterator[str]:
    blank = " " * indent
    for key, value in data.items():
        here = (*path, key)
        for text in comments.get(here, ()):
            yield from _wrapped(text, indent)
        if isinstance(value, Mapping) and value:
            yield f"{blank}{_scalar(key)}:"
            yield from _mapping(value, here, indent + 2, comments)
        elif isinstance(value, list) and value:
            yield f"{blank}{_scalar(key)}:"
            yield from _list(value, here, indent + 2, comments)
        else:
            yield f"{blank}{_scalar(key)}: {_scalar(value)}"


def _list(data: Sequence[Any], path: Path, indent: int, comments: Mapping[Path, Sequence[str]]) -> Iterator[str]:
    blank = " " * indent
    for number, value in enumerate(data):
        here = (*path, number)
        for text in comments.get(here, ()):
            yield from _wrapped(text, indent)
        if isinstance(value, Mapping) and value:
            inner = list(_mapping(value, here, indent + 2, comments))
            first = next(place for place, line in enumerate(inner) if not line.lstrip().startswith("#"))
            yield from inner[:first]
            yield f"{blank}- {inner[first].lstrip()}"
            yield from inner[first + 1 :]
        else:
            yield f"{blank}- {_scalar(value)}"


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")


def _wrapped(text: str, indent: int) -> list[str]:
    start = " " * indent + "# "
    if text.startswith(" "):
        return [f"{start}{text}"]
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=start,
        break_long_words=False,
        break_on_hyphens=False,
    )
