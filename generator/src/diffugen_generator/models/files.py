"""Which files of a model's folder are read: its settings, its tokenizers, and one set of weights for each network.

Only names decide this, so the choice is the same for a folder, a repository and a bucket. If a network has several
sets of weights, the plain set is read, else the set in half precision. Pickled weights may run code when they are
loaded, so they are read only if the model's digest is given.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from diffugen_generator.families.folder import INDEX, PICKLED, settings_from, variant_of
from diffugen_generator.families.registry import family_of, pipelines

SAFE: Final = ".safetensors"
_SETTINGS: Final = (".json", ".txt")
_OTHER_SETTINGS = re.compile(r"(\.index(\.\w+)?\.json|flax\w*|openvino\w*)$")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which files of a model are read."""

    names: tuple[str, ...]
    """Sorted; relative to the model's folder."""
    weights: frozenset[str]
    """The names that are weights."""
    safe: bool
    """Whether no weights are pickled."""
    pipeline: str
    """One of `registry.pipelines()`."""


def choose(names: Collection[str], index: bytes | None) -> Choice:
    """Return which files are read of a model with files `names` and the model_index.json `index`.

    Raises `ValueError` if no image can be drawn with the model; the error's text ends a sentence about the model.
    Pickled weights are chosen if a network has no others.
    """
    if index is None:
        raise ValueError(f"is no diffusers folder: it has no {INDEX}.")
    pipeline = str(settings_from(index, INDEX).get("_class_name"))
    if pipeline not in pipelines():
        raise ValueError(f"is a {pipeline}; what can be drawn with is: {', '.join(pipelines())}.")
    family = family_of(pipeline)
    chosen, weights = {INDEX}, set[str]()
    for component in family.pipelines[pipeline]:
        within = {name for name in names if name.startswith(f"{component}/") and name.count("/") == 1}
        if not within:
            raise ValueError(f"lacks its folder {component}/.")
        chosen |= {name for name in within if name.endswith(_SETTINGS) and not _OTHER_SETTINGS.search(name)}
        if component not in family.without_weights:
            weights |= _weights(component, within)
    safe = not any(name.endswith(PICKLED) for name in weights)
    return Choice(tuple(sorted(chosen | weights)), frozenset(weights), safe, pipeline)


def _weights(component: str, within: Collection[str]) -> set[str]:
    """Return one set of weights; if the set is in parts, with the index of its parts."""
    safe = {name for name in within if name.endswith(SAFE)}
    unsafe = {name for name in within if name.endswith(PICKLED)}
    if not (found := safe or unsafe):
        raise ValueError(f"has no weights in {component}/.")
    return one_set(found, within)


def one_set(found: Collection[str], within: Collection[str]) -> set[str]:
    """Return the plain set of the weights `found`, else the set in half precision, with the index of its parts.

    The weights are all safetensors or all pickled; `within` are all files of their folder.
    """
    by_variant: dict[str, set[str]] = {}
    for name in found:
        by_variant.setdefault(variant_of(name), set()).add(name)
    variant = next((each for each in ("", "fp16") if each in by_variant), min(by_variant))
    indexes = {name for name in within if name.endswith(".index.json" if not variant else f".index.{variant}.json")}
    in_parts = any("-of-" in name for name in by_variant[variant])
    safe = all(name.endswith(SAFE) for name in found)
    return by_variant[variant] | {name for name in indexes if in_parts and (SAFE in name) is safe}
