"""Reads the license of a model from its card: `README.md` with a YAML head, as on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

CARD: Final = "README.md"
_FENCE = "---"
_MOST_BYTES = 1 << 20
_MOST_CHARACTERS = 200
_MOST_NAMES = 20


def license_in(folder: Path) -> str:
    """Return the license that the card in a model's folder states; empty if there is no card, or it states none.

    For the license `other`, the card's `license_name` is returned, or its `license_link`.
    """
    try:
        with (folder / CARD).open("rb") as file:
            lines = file.read(_MOST_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    if not lines or lines[0].strip() != _FENCE:
        return ""
    end = next((number for number, line in enumerate(lines[1:], start=1) if line.strip() == _FENCE), None)
    if end is None:
        return ""
    try:
        head = yaml.safe_load("\n".join(lines[1:end]))
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):  # a date of month 13 is a ValueError
        return ""
    if not isinstance(head, dict):
        return ""
    stated = head.get("license")
    if stated == "other":
        stated = head.get("license_name") or head.get("license_link") or stated
    names = stated[:_MOST_NAMES] if isinstance(stated, list) else [stated]
    # no list or map: with aliases, a small one can have billions of values
    plain = [str(name) for name in names if name and isinstance(name, str | int | float)]
    return " ".join(", ".join(plain).split())[:_MOST_CHARACTERS]
