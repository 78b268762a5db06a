"""Reads the option `--class` of `diffugen new` and `diffugen label`."""

from __future__ import annotations

from typing import Any


def class_of(text: str) -> dict[str, Any]:
    """Return the class that `NAME` or `NAME=WORD,WORD` means, as a manifest spells it."""
    name, _, words = text.partition("=")
    synonyms = [word.strip() for word in words.split(",") if word.strip()]
    return {"name": name.strip(), **({"synonyms": synonyms} if synonyms else {})}
