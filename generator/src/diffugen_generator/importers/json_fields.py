"""Typed access to a JSON object: collects every fault with its key, and knows the keys that were not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a file."""

    key: str
    """The key, with a dot between the levels: `txt2img.prompts[0]`."""
    message: str
    """What is wrong, and how to fix it."""


class InvalidConfigError(Exception):
    """A file that cannot be converted: all of its problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep every problem."""
        super().__init__("; ".join(f"{each.key}: {each.message}" for each in problems))
        self.problems = list(problems)


class JsonFields:
    """One object of a JSON file.

    A value that is missing or has a wrong type is added to `problems`, which all levels share. It is then read as the
    type's empty value, so that one pass finds all problems of a file.
    """

    def __init__(self, data: Mapping[str, Any], problems: list[Problem], path: str = "") -> None:
        """Read `data`, which is at `path` of the file."""
        self._data = data
        self._path = path
        self._read: set[str] = set()
        self._children: list[JsonFields] = []
        self.problems = problems

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def key(self, name: str) -> str:
        """Return the whole key of a field."""
        return f"{self._path}.{name}" if self._path else name

    def fault(self, name: str, message: str) -> None:
        """Add a problem of a field."""
        self.problems.append(Problem(self.key(name), message))

    def raw(self, name: str) -> Any:
        """Return a value unchanged, and mark it as read."""
        self._read.add(name)
        return self._data.get(name)

    def text(self, name: str, fix: str = "") -> str:
        """Return a string. `fix` is the advice if it is missing; without `fix` the field may be absent."""
        return str(self._typed(name, str, "a string", fix) or "")

    def flag(self, name: str, fix: str = "") -> bool:
        """Return true or false."""
        return bool(self._typed(name, bool, "true or false", fix))

    def integer(self, name: str, low: int, high: int, fix: str = "") -> int:
        """Return a whole number; `low` where it is absent or out of range."""
        value = self._typed(name, int, "a whole number", fix)
        if isinstance(value, int) and not low <= value <= high:
            self.fault(name, f"{value} is not between {low:,} and {high:,}; write a number in that range")
            return low
        return value if isinstance(value, int) else low

    def texts(self, name: str, fix: str = "") -> list[str]:
        """Return a list of strings; an empty one is a problem."""
        value = self._typed(name, list, f'a list of strings, such as ["{name}"]', fix)
        if value is None:
            return []
        for number, each in enumerate(value):
            if not isinstance(each, str):
                self.problems.append(Problem(f"{self.key(name)}[{number}]", f"{each!r} is not a string; quote it"))
        if not value:
            self.fault(name, "the list is empty, so DiffuGen would draw nothing; give it one value or more")
        return [each for each in value if isinstance(each, str)]

    def map_of_texts(self, name: str) -> dict[str, str]:
        """Return an object whose values are strings; empty where it is absent."""
        value = self._typed(name, dict, "an object of strings", "")
        for key, each in (value or {}).items():
            if not isinstance(each, str):
                self.problems.append(Problem(f"{self.key(name)}.{key}", f"{each!r} is not a string; quote it"))
        return {key: each for key, each in (value or {}).items() if isinstance(each, str)}

    def child(self, name: str, fix: str = "") -> JsonFields | None:
        """Return an object inside this one; None where it is absent."""
        value = self._typed(name, dict, "an object", fix)
        if value is None:
            return None
        child = JsonFields(value, self.problems, self.key(name))
        self._children.append(child)
        return child

    def names(self) -> list[str]:
        """Return the names of the fields."""
        return list(self._data)

    def unread(self) -> Iterator[tuple[str, Any]]:
        """Yield the key and the value of every field that was not read, on all levels."""
        for name, value in self._data.items():
            if name not in self._read:
                yield self.key(name), value
        for child in self._children:
            yield from child.unread()

    def _typed(self, name: str, kind: type, what: str, fix: str) -> Any:
        value = self.raw(name)
        if name not in self._data:
            if fix:
                self.fault(name, f"it is missing; {fix}")
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.fault(name, f"{value!r} is not {what}; write {what}")
            return None
        return value
