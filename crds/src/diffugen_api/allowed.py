"""Describes in plain words what a JSON schema allows: types, ranges, lengths, choices and patterns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]

_LOWER = "text of lower-case letters, digits and '-', with a letter or digit first and last"
_DOTTED = "text of lower-case letters, digits, '-' and '.', with a letter or digit first and last"
PATTERNS: Mapping[str, str] = {
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": _LOWER,
    r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$": _DOTTED,
    r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$": _DOTTED,
    r"^[0-9a-f]{64}$": "64 digits from 0-9 and a-f",
    r"^\S(.*\S)?$": "text without white space at its ends",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "text of letters, digits and '_', with no digit first",
    r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$": "text without control "
    "characters, and without white space at its ends",
    r"^[A-Za-z0-9._/-]*$": "text of letters, digits, '.', '_', '-' and '/'",
    r"^https?://([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?/?$": "http:// or https://, a host and a port, such as "
    "http://minio.storage:9000",
    r"^[^\s()\[\]{}\\\",:+]*[^\s()\[\]{}\\\",:+-]$": "one word without ( ) [ ] { } \\ \" , : + and without '-' at its "
    "end, such as <piano>",
    r"^(s3://|hf://|/|~).+\.(txt|jsonl|csv)(\.gz)?$": "s3://BUCKET/FILE, hf://ORG/NAME/FILE or an absolute path, with "
    "the ending .txt, .jsonl or .csv, each also with .gz",
    r"^[^{}]*(\{\}[^{}]*)+$": "text with {} where the word goes, such as 'a photo of {}'",
}
"""Each pattern of the models in words."""


def resolved(root: Schema, schema: Schema) -> Schema:
    """Return a schema, or the schema that it refers to."""
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def parts(root: Schema, schema: Schema) -> Iterator[Schema]:
    """Yield the schemas of which a value may match any: the members of a union without null, or the schema itself."""
    for member in schema.get("anyOf", (schema,)):
        here = resolved(root, member)
        if "anyOf" in here and here is not schema:
            yield from parts(root, here)
        elif here.get("type") != "null":
            yield here


def required(schema: Schema) -> Sequence[str]:
    """Return the fields that an object must have."""
    found: Sequence[str] = schema.get("required", ())
    return found


def allowed(root: Schema, schema: Schema) -> str:
    """Return what a schema allows, as `a whole number from 1 to 1000`."""
    return " or ".join(dict.fromkeys(_allowed(member) for member in parts(root, schema)))


def _allowed(schema: Schema) -> str:
    if "enum" in schema:
        return one_of(schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    words = {
        "integer": f"a whole number{_range(schema)}",
        "number": f"a number{_range(schema)}",
        "boolean": "true or false",
        "array": f"a list{_count(schema, 'minItems', 'maxItems', 'entries')}",
        "object": f"a map with {_and(required(schema))}" if required(schema) else "a map",
        "string": PATTERNS.get(schema.get("pattern", ""))
        or f"text{_count(schema, 'minLength', 'maxLength', 'characters')}",
    }
    return words.get(str(schema.get("type")), "a value")


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def one_of(values: Sequence[object]) -> str:
    """Return choices in words: `a, b or c`."""
    names = [str(value) for value in values]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _range(schema: Schema) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    words = ""
    if above is not None:
        words = f" above {above:g}" + (f" and at most {most:g}" if most is not None else "")
    elif least is not None and most is not None:
        words = f" from {_number(least)} to {_number(most)}"
    return words + (f" that is a multiple of {schema['multipleOf']}" if "multipleOf" in schema else "")


def _count(schema: Schema, least: str, most: str, what: str) -> str:
    if most not in schema:
        return ""
    return f" of {schema[least]} to {schema[most]} {what}" if least in schema else f" of at most {schema[most]} {what}"


_MOST_DIGITS = 30


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value) if abs(value) < 10**_MOST_DIGITS else f"a number of more than {_MOST_DIGITS} digits"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:g}"


def broken_rule(value: object, schema: Schema) -> str:
    """Return which rule of its own type's schema a value breaks, and the fix; empty if it breaks none."""
    match value:
        case str() if "enum" not in schema and "const" not in schema:
            return _broken_text(value, schema)
        case bool():
            return ""
        case int() | float():
            return _broken_number(value, schema)
        case list() | Mapping():
            return _broken_count(len(value), schema)
        case _:
            return ""


def _broken_text(text: str, schema: Schema) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if not text and least:
        return f"it is empty: write {_allowed(schema)}"
    if most is not None and len(text) > most:
        return f"it has {len(text)} characters and may have {most}: shorten it"
    pattern = schema.get("pattern", "")
    if pattern and not re.search(pattern, text):
        wrong = f"{text!r} is not {PATTERNS.get(pattern, 'allowed')}"
        return f"{wrong}: write {better!r}" if (better := _better(text, pattern)) else f"{wrong}: change it"
    return ""


def _better(text: str, pattern: str) -> str:
    """Return the nearest text that a pattern allows; empty where none is found."""
    tried = [
        text.strip(),
        text.lower().strip(),
        re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-"),
        re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_"),
        f"_{text}",
        f"http://{text}",
    ]
    return next((each for each in tried if each and re.search(pattern, each)), "")


def _broken_number(value: float, schema: Schema) -> str:
    wrong = f"{_number(value) if isinstance(value, int) else value} is not {_allowed(schema)}"
    least, most, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
    if schema.get("type") == "integer" and isinstance(value, float):
        return f"{wrong}: write it without a fraction"
    if above is not None and value <= above:
        return f"{wrong}: write more than {above:g}"
    if least is not None and value < least:
        return f"{wrong}: write {_number(least)} or more"
    if most is not None and value > most:
        return f"{wrong}: write {_number(most)} or less"
    if (step := schema.get("multipleOf")) and value % step:
        below = int(value // step * step)
        return f"{wrong}: write {below} or {below + step}"
    return ""


def _broken_count(count: int, schema: Schema) -> str:
    what = "entries" if schema.get("type") == "array" else "fields"
    least = schema.get("minItems", schema.get("minProperties", 0))
    most = schema.get("maxItems", schema.get("maxProperties"))
    if count < least:
        return f"it has {count} {what} and needs {least} or more: add one"
    if most is not None and count > most:
        return f"it has {count} {what} and may have {most}: remove {count - most}"
    return ""
