"""What of a model's folder is read: its settings, its tokenizers, and one set of weights for each network.

Decided by names alone, so that it is the same for a folder, a repository and a bucket. Where a network has several
sets of weights the plain one is taken, else that in half precision. Pickled weights may run code when loaded, so they
are taken only where the model's digest is given.
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
    """What of a model is read."""

    names: tuple[str, ...]
    """Sorted; relative to the model's folder."""
    weights: frozenset[str]
    """Those of them that are weights."""
    safe: bool
    """Whether none of these is pickled."""
    pipeline: str
    """One of `registry.pipelines()`."""


def choose(names: Collection[str], index: bytes | None) -> Choice:
    """Return what is read of a model with files `names` and the model_index.json `index`.

    Raises `ValueError` where it cannot be drawn with; its text ends a sentence about the model. Pickled weights are
    taken where a network has no others.
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
    """Return one set of weights, with the index of its parts where it is in parts."""
    safe = {name for name in within if name.endswith(SAFE)}
    unsafe = {name for name in within if name.endswith(PICKLED)}
    if not (found := safe or unsafe):
        raise ValueError(f"has no weights in {component}/.")
    return one_set(found, within)


def one_set(found: Collection[str], within: Collection[str]) -> set[str]:
    """Return the plain set of the weights `found`, else that in half precision, with the index of its parts.

    They are all safetensors or all pickled; `within` are all files of their folder.
    """
    by_variant: dict[str, set[str]] = {}
    for name in found:
        by_variant.setdefault(variant_of(name), set()).add(name)
    variant = next((each for each in ("", "fp16") if each in by_variant), min(by_variant))
    indexes = {name for name in within if name.endswith(".index.json" if not variant else f".index.{variant}.json")}
    in_parts = any("-of-" in name for name in by_variant[variant])
    safe = all(name.endswith(SAFE) for name in found)
    return by_variant[variant] | {name for name in indexes if in_parts and (SAFE in name) is safe}
