"""YAML documents with their places: a key that is written twice is an error, and a value's own spelling is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Location = tuple[str | int, ...]

MOST_VALUES = 1_000_000
"""The most values of a document, aliases counted wherever they are used; the largest manifests have some 100,000."""


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

    Raises `yaml.MarkedYAMLError` for what is not YAML, for a key that is written twice (most readers keep the last one
    without an error), and for aliases that make a document too large or contain themselves.
    """
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            _check_keys(node)
            _check_size(node)
            if (data := loader.construct_document(node)) is not None:
                yield Document(data, node)
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Names the place of a scalar that cannot be read, such as a number of 5,000 digits or the 99th of a month."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            problem = f"this value cannot be read ({error}): write another one, or quote it"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None


def _check_size(root: yaml.Node | None) -> None:
    sizes: dict[int, int] = {}

    def size_of(node: yaml.Node) -> int:
        if (known := sizes.get(id(node))) is None:
            sizes[id(node)] = MOST_VALUES + 1  # of an anchor that contains itself
            values = node.value if isinstance(node, yaml.SequenceNode) else []
            if isinstance(node, yaml.MappingNode):
                values = [part for pair in node.value for part in pair]
            known = sizes[id(node)] = 1 + sum(map(size_of, values))
        if known > MOST_VALUES:
            problem = f"with its aliases it has more than {MOST_VALUES:,} values: write them out, and fewer"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return known

    if root is not None:
        size_of(root)


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
