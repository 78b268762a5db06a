"""Content addresses: a hash over the canonical JSON of everything that decides an object, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_text = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical(value: Any) -> bytes:
    """Return the canonical JSON text of a value: sorted keys, no spaces, UTF-8; NaN is an error."""
    return _text(value).encode()


def address(value: Any, digits: int = 32) -> str:
    """Return a content address: the first hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()[:digits]
