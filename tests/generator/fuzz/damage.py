"""Damages files, by a seeded generator: bytes, and values of JSON wherever a file has some."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any

from diffugen_generator.samples.documents import CHECKSUM, sealed

DEEP = 30_000
"""Levels of nesting, beyond every parser's."""

_NUMBER = re.compile(rb"-?\d+(\.\d+)?")
_TOKENS = (b"NaN", b"-Infinity", b"1e999", b"9" * 500, b"9" * 5000, b"-1", b"0", b"null", b'"\\ud800"', b"1e308")


class Raw(str):
    """Text that is written into JSON as it is."""

    __slots__ = ()


def odd_values() -> list[Any]:
    return [
        None, True, False, 0, -1, 1, 0.5, 1e308, -0.0, 2**31, 2**63, 2**64, 10**30, "", " ", "0", "-1", "nan", "\0",
        "a" * 3000, "\ud800", "..", "../../x", "é" * 70, [], {}, [[]], [None], {"": None}, [0] * 3000, "1e999",
        Raw("NaN"), Raw("Infinity"), Raw("1e999"), Raw("9" * 400), Raw("9" * 5000), Raw("[" * DEEP + "]" * DEEP),
        Raw('{"a":' * DEEP + "1" + "}" * DEEP), Raw('{"a":1,"a":2}'), Raw("[" * 200 + "]" * 200),
    ]  # fmt: skip


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in JSON data."""
    yield path
    if isinstance(data, dict):
        for key, value in data.items():
            yield from places(value, (*path, key))
    elif isinstance(data, list):
        for number, value in enumerate(data[:50]):
            yield from places(value, (*path, number))


def changed(data: Any, chance: Random) -> Any:
    """Return JSON data with one value replaced, removed, added or moved."""
    data = json.loads(json.dumps(data))
    path = chance.choice(list(places(data)))
    if not path:
        return chance.choice([data, data, chance.choice(odd_values())]) if chance.random() < 0.5 else data
    parent = data
    for part in path[:-1]:
        parent = parent[part]
    match chance.randrange(5):
        case 0:
            del parent[path[-1]]
        case 1 if isinstance(parent, dict):
            parent[chance.choice(["x", "", "\ud800", "__metadata__", "id", "../x"])] = chance.choice(odd_values())
        case 2:
            others = list(places(data))
            parent[path[-1]] = json.loads(json.dumps(_at(data, chance.choice(others))))
        case _:
            parent[path[-1]] = chance.choice(odd_values())
    return data


def _at(data: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        data = data[part]
    return data


def text_of(data: Any) -> bytes:
    """Return JSON; `Raw` texts are written as they are."""
    marks: dict[str, str] = {}

    def marked(value: Any) -> Any:
        if isinstance(value, Raw):
            marks[f"\x01{len(marks)}\x01"] = str(value)
            return f"\x01{len(marks) - 1}\x01"
        if isinstance(value, dict):
            return {key: marked(each) for key, each in value.items()}
        if isinstance(value, list):
            return [marked(each) for each in value]
        return value

    text = json.dumps(marked(data))
    for mark, raw in marks.items():
        text = text.replace(json.dumps(mark), raw)
    return text.encode()


def changed_json(data: bytes, chance: Random) -> bytes:
    """Change values of a document; a checksum is made to match where that is possible."""
    content = json.loads(data)
    had = isinstance(content, dict) and content.pop(CHECKSUM, None) is not None
    for _ in range(chance.randint(1, 3)):
        content = changed(content, chance)
    if had and isinstance(content, dict):
        with suppress(ValueError, RecursionError):
            content = sealed(json.loads(text_of(content)))
    return text_of(content)


def changed_bytes(data: bytes, chance: Random) -> bytes:
    """Change bytes: flipped, cut, inserted, repeated, zeroed, or numbers replaced."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(8):
            case 0 if out:
                out[at % len(out)] ^= 1 << chance.randrange(8)
            case 1:
                del out[at:]
            case 2:
                del out[at : at + chance.randint(1, 64)]
            case 3:
                out[at:at] = chance.randbytes(chance.randint(1, 64))
            case 4:
                out[at:at] = out[at : at + chance.randint(1, 500)]
            case 5:
                size = min(chance.randint(1, 16), len(out) - at)
                out[at : at + size] = chance.choice([b"\0", b"\xff"]) * size
            case 6:
                out[at:at] = chance.choice([b"[", b'{"a":', b"(", b"\x28\x5d"]) * DEEP
            case _:
                if found := list(_NUMBER.finditer(bytes(out[:20_000]))):
                    span = chance.choice(found).span()
                    out[span[0] : span[1]] = chance.choice(_TOKENS)
    return bytes(out)


Change = Callable[[bytes, Random], bytes]


def in_lines(data: bytes, chance: Random) -> bytes:
    """Change a line of gzipped JSON lines."""
    return gzip.compress(in_text_lines(gzip.decompress(data), chance), 1)


def in_text_lines(data: bytes, chance: Random) -> bytes:
    """Change a line of JSON lines."""
    lines = data.splitlines()
    number = chance.randrange(len(lines))
    lines[number] = (changed_json if chance.random() < 0.8 else changed_bytes)(lines[number], chance)
    return b"\n".join(lines) + b"\n"


def in_zip(data: bytes, chance: Random) -> bytes:
    """Change an entry of a zip file, its name, or its stated size."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(each.filename, archive.read(each)) for each in archive.infolist()]
    number = chance.randrange(len(entries))
    name, content = entries[number]
    match chance.randrange(4):
        case 0:
            entries[number] = (chance.choice(["x", "../x", name + name, "data.pkl", "a/data.pkl"]), content)
        case 1:
            entries.append((name, changed_bytes(content, chance)))
        case _:
            entries[number] = (name, changed_bytes(content, chance))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def in_header(data: bytes, chance: Random) -> bytes:
    """Change the JSON header of a safetensors file, or the length that it states."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    header = (changed_json if chance.random() < 0.8 else changed_bytes)(header, chance)
    stated = len(header) if chance.random() < 0.8 else chance.choice([0, 1, 2**20, 2**32, 2**63, 2**64 - 1])
    return stated.to_bytes(8, "little") + header + rest


def damaged(data: bytes, change: Change, chance: Random) -> bytes:
    """Return a damaged file: by the way of its kind, or byte by byte."""
    return change(data, chance) if chance.random() < 0.65 else changed_bytes(data, chance)
