"""Prompt templates: `{name}` and nothing else.

A template is user input for a program with store credentials. So `str.format` is not used: its attribute access,
indexing and format specs could be used for an attack. `{{` and `}}` are the braces themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class TemplateError(ValueError):
    """A template that cannot be read; the message has the place and the fix."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: `literals[0], fields[0], literals[1], …, literals[-1]`, alternating."""

    text: str
    literals: tuple[str, ...]
    fields: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template; raise `TemplateError` for stray braces and for fields that are not plain names."""
        literals, fields, here, start = [], [], "", 0
        for piece in _PIECE.finditer(text):
            here += text[start : piece.start()]
            start = piece.end()
            token = piece.group()
            if token in {"{{", "}}"}:
                here += token[0]
                continue
            if piece.group(1) is None:
                raise TemplateError(
                    f"a lone {token!r} at character {piece.start() + 1}; write {token * 2!r} for the brace itself"
                )
            if not _NAME.match(piece.group(1)):
                raise TemplateError(
                    f"the field {token!r} is not a plain name; only {{name}} of a variable is allowed, "
                    "without attributes, indexes or formats"
                )
            literals.append(here)
            fields.append(piece.group(1))
            here = ""
        return cls(text, (*literals, here + text[start:]), tuple(fields))

    def render(self, values: Mapping[str, str]) -> str:
        """Fill the fields in; raises `KeyError` for a field without a value."""
        out = [self.literals[0]]
        for field, literal in zip(self.fields, self.literals[1:], strict=True):
            out.append(values[field])
            out.append(literal)
        return "".join(out)
