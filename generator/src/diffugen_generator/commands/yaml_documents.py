"""YAML documents with their places: a key that is written twice is an error, and a value's own spelling is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a YAML file."""

    data: Any
    node: yaml.Node | None

    def written(self, location: Location) -> str | None:
        """Return the text of the scalar at a place as it is spelled there; None where there is none."""
        here = self.node
        for part in location:
            here = _child(here, part)
        return str(here.value) if isinstance(here, yaml.ScalarNode) else None


def documents(text: str) -> Iterator[Document]:
    """Yield the documents of a YAML text that are not empty.

    Raises `yaml.MarkedYAMLError` for what is not YAML, and for a key that is written twice: most readers keep the last
    one without an error.
    """
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            _check_keys(node)
            if (data := loader.construct_document(node)) is not None:
                yield Document(data, node)
    finally:
        loader.dispose()


def _check_keys(root: yaml.Node | None) -> None:
    waiting, done = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in done:  # an alias, or an anchor that contains itself
            continue
        done.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            waiting.append(value)
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            line = key.start_mark.line + 1
            if (first := lines.get((key.tag, key.value))) is not None:
                where = f"in lines {first} and {line}" if first != line else f"in line {line}"
                problem = f"the key {key.value!r} is written twice, {where}: remove one of them"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[key.tag, key.value] = line


def _child(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        found: yaml.Node = node.value[part]
        return found
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if getattr(key, "value", None) == part), None)
    return None
