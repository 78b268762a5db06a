"""Reads JSON that somebody else may have written or damaged."""

from __future__ import annotations

import codecs
import json
from typing import Any

MOST_BYTES = 64 << 20
"""The largest document that is parsed; a label of a thousand objects has 2 MB."""


def json_of(data: bytes, most: int = MOST_BYTES, *, infinite: bool = False) -> Any:
    """Return the content of a JSON document.

    Raises `ValueError` if it has more than `most` bytes, or is not JSON: NaN and infinity are not, and neither is a
    document that is nested deeper than the interpreter can follow. With `infinite`, Infinity and -Infinity are numbers,
    as Python writes them.
    """
    if len(data) > most:
        raise ValueError(f"it has {len(data):,} bytes; the limit is {most:,}")
    try:
        text = data.decode("utf-8-sig" if data.startswith(codecs.BOM_UTF8) else "utf-8")
        return (_decode_infinite if infinite else _decode)(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error}") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _infinite(name: str) -> float:
    return _no_constant(name) if name == "NaN" else float(name)


_decode_infinite = json.JSONDecoder(parse_constant=_infinite).decode
_decode = json.JSONDecoder(parse_constant=_no_constant).decode
