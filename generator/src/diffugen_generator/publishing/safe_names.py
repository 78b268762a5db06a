"""Names of classes as names of files and folders, on any file system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

_UNSAFE: Final = re.compile(r'[\x00-\x1f\x7f-\x9f/\\\\:*?"<>|]')
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?\Z", re.IGNORECASE)
_LONGEST: Final = 200
"""Bytes; file systems allow 255, with the ending."""


def safe_names(names: Iterable[str]) -> dict[str, str]:
    """Return a name for a file or folder for each of `names`, all different without regard to case.

    A name of letters, digits, spaces, `_` and `-` stays as it is. In others, signs that file systems do not allow
    become `_`; a number is appended to a name that is taken already.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        safe = base = _safe(name)
        number = 2
        while safe.casefold() in taken:
            safe, number = f"{base}-{number}", number + 1
        taken.add(safe.casefold())
        found[name] = safe
    return found


def _safe(name: str) -> str:
    safe = _UNSAFE.sub("_", unicodedata.normalize("NFC", name))
    safe = safe.encode(errors="replace")[:_LONGEST].decode(errors="ignore").rstrip(". ")
    if not safe or safe.startswith(".") or _RESERVED.match(safe):
        safe = f"_{safe}"
    return safe
