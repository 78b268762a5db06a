"""Data files of the report: JavaScript files that hand one JSON text to the page.

A page that is opened from a folder (`file://`) may not fetch files, but it may load scripts. So each data file is a
script with a single call, whose arguments are string literals. The page parses the text as JSON; nothing in it is
run or becomes HTML.
"""

from __future__ import annotations

import base64
import json
import sys
from array import array
from collections.abc import Sequence
from typing import Any

JAVASCRIPT = "text/javascript; charset=utf-8"


def data_file(name: str, content: Any) -> bytes:
    """Return the script that hands `content` to the page under `name`, which consists of letters, digits and slashes.

    JSON inside a literal in single quotes needs three escapes. `<` is escaped too: tools that put a script into a page
    must not find the end of the script in a prompt.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    literal = text.replace("\\", "\\\\").replace("'", "\\'").replace("<", "\\x3c")
    literal = literal.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f"DiffuGenReport.receive('{name}','{literal}');\n".encode("utf-8", "replace")


def packed(kind: str, values: Sequence[int]) -> str:
    """Return numbers as base64 of little-endian integers; `kind` is B (8 bits) or H (16 bits)."""
    numbers = array(kind, values)
    if numbers.itemsize != {"B": 1, "H": 2}[kind]:
        raise AssertionError(f"array({kind!r}) has items of {numbers.itemsize} bytes")
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
