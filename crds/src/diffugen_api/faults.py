"""Describes the faults of a manifest in sentences: the field, its value, the allowed values, and the fix.

pydantic reports errors in its own terms, and several errors for one field if its type is a union. This module takes
only the locations from pydantic. It finds the allowed values in the JSON schema of the model, so one sentence has all
of them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from diffugen_api.allowed import allowed, broken_rule, parts, required, resolved
from diffugen_api.errors import shortened

Location = tuple[str | int, ...]
Written = Callable[[Location], str | None]
"""Returns the text of a scalar as the manifest spells it, such as `no` for False; None where it is not known."""

_INNER_PATH = re.compile(r"(?P<path>[\w.]*\[\d+\][\w.\[\]]*): ")
_MOST_SHOWN = 60
_MOST_FIELDS = 12
_LONGEST = 1000
"""The most characters of a field's name, and of a message."""
_WHOLE = 1e15
"""Below it, floating-point numbers have a fraction to lose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a manifest."""

    path: str
    """The field, such as `spec.stages[0].txt2img.steps`, as in the manifest; empty for a fault of the whole file."""
    message: str
    """The value, what is allowed, and the fix."""

    def __str__(self) -> str:
        """Return the fault in one line."""
        return f"{self.path}: {self.message}" if self.path else self.message


def faults_of(
    error: ValidationError, model: type[BaseModel], data: object, *, path: str = "", written: Written = lambda _: None
) -> list[Fault]:
    """Return the faults of `data` from the `error` of `model`; one for each field, in the order of the fields.

    `path` is the field that has the value `data`, such as `spec`; `written` returns a scalar's text in the manifest.
    """
    found: dict[str, Fault] = {}
    for detail in error.errors(include_url=False):
        location = _location(detail, data)
        fault = _fault(detail, location, _schema(model), data, written)
        whole = ".".join(part for part in (path, fault.path) if part).replace(".[", "[")
        found.setdefault(whole, Fault(shortened(whole, _LONGEST), shortened(fault.message, _LONGEST)))
    return list(found.values())


@cache
def _schema(model: type[BaseModel]) -> Mapping[str, Any]:
    return model.model_json_schema(by_alias=True)


def _has(data: Any, part: str | int) -> bool:
    if isinstance(data, Mapping):
        return part in data
    return isinstance(data, list) and isinstance(part, int) and part < len(data)


def _location(detail: ErrorDetails, data: object) -> Location:
    """Return the location of an error, without the names that pydantic gives to the members of a union."""
    where: list[str | int] = []
    here: Any = data
    for part in detail["loc"]:
        if _has(here, part):
            here = here[part]
        elif detail["type"] == "missing" and part == detail["loc"][-1]:
            here = None
        else:
            continue
        where.append(part)
    return tuple(where)


def _fault(
    detail: ErrorDetails, location: Location, schema: Mapping[str, Any], data: object, written: Written
) -> Fault:
    path = path_of(location)
    if detail["type"] == "value_error":
        message = detail["msg"].removeprefix("Value error, ")
        if (inner := _INNER_PATH.match(message)) is not None:  # a rule over several fields names the field it means
            part = inner["path"]
            between = "." if path and not part.startswith("[") else ""
            return Fault(f"{path}{between}{part}", message[inner.end() :])
        return Fault(path, message)
    if detail["type"] == "extra_forbidden":
        members = parts(schema, _schema_at(schema, location[:-1]))
        known = [name for member in members for name in member.get("properties", ())]
        return Fault(path, _unknown_field(str(location[-1]), known))
    if detail["loc"][-1:] == ("[key]",):
        names = _schema_at(schema, location[:-1])
        rule = {"pattern": next(iter(names.get("patternProperties", {})), ""), **names.get("propertyNames", {})}
        return Fault(path_of(location[:-1]), f"the name {broken_rule(location[-1], rule)}")
    here = _schema_at(schema, location)
    if detail["type"] == "missing":
        return Fault(path, f"it is missing: give {allowed(schema, here)}")
    return Fault(path, _explained(schema, here, location, _value(data, location), written))


def path_of(location: Location) -> str:
    """Return a location in a manifest as people write it: `spec.stages[0].name`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _value(data: Any, location: Location) -> object:
    for part in location:
        data = data[part]
    return data


def _schema_at(schema: Mapping[str, Any], location: Location) -> Mapping[str, Any]:
    """Return the part of a schema for a location; empty if the schema does not have the location."""
    here: Mapping[str, Any] = resolved(schema, schema)
    for part in location:
        for member in parts(schema, here):
            if isinstance(part, int):
                inner = member.get("items")
            else:
                named = member.get("properties", {}).get(part)
                inner = (
                    named
                    or member.get("additionalProperties")
                    or next(iter(member.get("patternProperties", {}).values()), None)
                )
            if isinstance(inner, Mapping):
                here = resolved(schema, inner)
                break
        else:
            return {}
    return here


def _unknown_field(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if nearest:
        return f"there is no such field: did you mean {nearest[0]!r}?"
    if not known:
        return "there is no such field: remove it"
    shown = ", ".join(known[:_MOST_FIELDS]) + (", …" if len(known) > _MOST_FIELDS else "")
    return f"there is no such field: remove it, or write one of {shown}"


def _explained(
    schema: Mapping[str, Any], here: Mapping[str, Any], location: Location, value: object, written: Written
) -> str:
    members = list(parts(schema, here))
    fitting = [member for member in members if _is_of(value, str(member.get("type", "")))]
    rule = broken_rule(value, fitting[0]) if fitting else ""
    if rule and len(members) == 1:
        return rule
    text = written(location)
    wrong = f"{shown(value, text)} is not {allowed(schema, here)}"
    fix = rule.rpartition(": ")[2]
    if not fix:
        fix = next((fix for member in members if (fix := _fix(schema, member, location, value, text))), "")
    return f"{wrong}: {fix or 'change it'}"


def _is_of(value: object, kind: str) -> bool:
    match kind:
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, Mapping)
        case _:
            return kind == "boolean" and isinstance(value, bool)


def _fix(
    schema: Mapping[str, Any], member: Mapping[str, Any], location: Location, value: object, text: str | None
) -> str:
    """Return the advice for a value of a wrong type; empty if there is none."""
    kind = member.get("type")
    fix = ""
    if value is None:
        fix = "write a value, or remove the field"
    elif kind == "array":
        fix = _as_list(schema, member, value)
    elif kind == "object":
        fix = _as_map(member, location, value)
    elif kind == "boolean":
        fix = "write true or false, without quotes"
    elif isinstance(value, list | Mapping):
        fix = "write one value"
    elif "enum" in member or "const" in member:
        fix = _choice(member, str(value))
    elif kind == "string":
        fix = f'quote it: "{_yaml(text or value)}"'
    elif isinstance(value, str) and _is_number(value, whole=kind == "integer"):
        fix = f"write {_yaml(value.strip())} without quotes"
    elif kind == "integer" and isinstance(value, float) and abs(value) < _WHOLE:
        fix = f"write {int(value)} or {int(value) + 1}"
    return fix


def _choice(member: Mapping[str, Any], value: str) -> str:
    """Return advice with the choice that is most similar to a value, or with the only choice."""
    choices = [str(each) for each in member.get("enum", (member.get("const"),))]
    nearest = difflib.get_close_matches(value.lower(), choices, n=1, cutoff=0.5)
    if len(choices) == 1:
        return f"write {choices[0]}"
    return f"did you mean {nearest[0]!r}?" if nearest else "write one of them"


def _as_list(schema: Mapping[str, Any], member: Mapping[str, Any], value: object) -> str:
    if isinstance(value, Mapping):
        return "write a list: begin each entry with '- '"
    only = required(resolved(schema, member.get("items", {})))
    return f"write a list: - {only[0]}: {value}" if len(only) == 1 else f"write a list: [{_yaml(value)}]"


def _as_map(member: Mapping[str, Any], location: Location, value: object) -> str:
    if isinstance(value, list):
        return "write a map: remove the '-' before its fields"
    dash = "- " if location and isinstance(location[-1], int) else ""
    if len(only := required(member)) == 1:
        return f"write {dash}{only[0]}: {_yaml(value)}"
    fields = ", ".join(list(member.get("properties", {}))[:_MOST_FIELDS])
    return f"write a map with {fields}" if fields else "write a map: {name: value}"


def _is_number(text: str, *, whole: bool) -> bool:
    return re.fullmatch(r"\s*-?\d+\s*" if whole else r"\s*-?(\d+\.?\d*|\.\d+)\s*", text) is not None


def _yaml(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else _digits(value) if isinstance(value, int) else str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


def _digits(value: int) -> str:
    return str(value) if abs(value) < 10**_MOST_SHOWN else "a very large number"


def shown(value: object, text: str | None = None) -> str:
    """Return a value for a message, in at most 60 characters; `text` is how the manifest spells it."""
    match value:
        case None:
            return "nothing"
        case list():
            return f"a list of {len(value)}"
        case Mapping():
            return f"a map of {len(value)}"
        case str():
            whole = repr(value)
        case _:
            whole = text if text is not None and text != _yaml(value) else _yaml(value)
            kind = "a yes-or-no value in YAML" if isinstance(value, bool) and whole not in {"true", "false"} else ""
            whole = f"{whole} ({kind})" if kind else whole
    return whole if len(whole) <= _MOST_SHOWN else f"{whole[: _MOST_SHOWN - 3]}…"


def first_of(faults: Sequence[Fault]) -> str:
    """Return the first fault as a sentence, and how many more there are."""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{faults[0]}{more}."
