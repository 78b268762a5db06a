"""A model's folder as a family reads it: its path, its settings, the names of its weights. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from diffugen_generator.bounded_json import json_of

INDEX: Final = "model_index.json"
PICKLED: Final = (".bin", ".ckpt", ".pt", ".pth")
_VARIANT = re.compile(r"\.(?P<variant>\w+)(?:\.safetensors|\.bin|-\d{5}-of-\d{5}\.\w+)$")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model that was found and can be loaded."""

    uri: str
    """The URI. For a repository it includes the commit of its branch."""
    path: Path
    """The folder. For a remote model that was resolved without `weights`, it has only the settings."""
    digest: str
    """SHA-256 in hex over names and digests of the files that the pipeline reads."""
    pipeline: str = "StableDiffusionPipeline"
    """The pipeline's class in `model_index.json`; `registry.family_of` finds the family by it."""
    weights: frozenset[str] = frozenset()
    """The files of its weights, relative to `path`."""
    checkpoint: Path | None = None
    """The file with all weights of a model in a single file; `path` then has only the settings made from it."""


def settings_of(path: Path) -> dict[str, Any]:
    """Read a JSON file of the model; raise `ValueError` if it is missing or broken."""
    try:
        content = path.read_bytes()
    except OSError:
        raise ValueError(f"has no {path.name} in {path.parent.name}/.") from None
    return settings_from(content, f"{path.name} in {path.parent.name}/")


def settings_from(content: bytes, what: str) -> dict[str, Any]:
    """Return a JSON object; raise `ValueError` if it is broken.

    diffusers writes infinite numbers: `lambda_min_clipped` of DPMSolverMultistepScheduler is `-Infinity`.
    """
    try:
        settings = json_of(content, infinite=True)
    except ValueError:
        raise ValueError(f"has a {what} that is not JSON: it is broken; copy it again.") from None
    if not isinstance(settings, dict):
        raise ValueError(f"has a {what} that is no JSON object: it is broken; copy it again.")  # noqa: TRY004
    return settings


def whole_number(settings: Mapping[str, Any], name: str, file: str, default: int | None = None) -> int:
    """Return a setting that is a count; raise `ValueError` with its name and `file` if it is not a count.

    Without a `default` the setting is required.
    """
    value = settings.get(name, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # some tokenizers write 1e+30 for "no limit"
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        said = f"{name} {value!r}" if name in settings else f"no {name}"
        raise ValueError(f"has {said} in {file} where a number of 1 or more belongs: fix it, or save the model again.")
    return value


def variant_of(name: str) -> str:
    """Return the variant of a weights file, such as `fp16`; empty for the plain one."""
    match = _VARIANT.search(name)
    return match["variant"] if match else ""
