"""Schedulers: the model's own, or another one by name over the same noise schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
from diffusers import SchedulerMixin

from diffugen_generator.models.model_folder import settings_of
from diffugen_generator.models.samplers import CONFIG, NAMED, UNSEEDED


def open_scheduler(folder: Path, name: str | None = None) -> Any:
    """Return the scheduler `name`, or the folder's own; raise `ValueError` where it cannot be used.

    What comes back is a diffusers scheduler; diffusers ships no types, so to mypy its classes are nothing.
    """
    own = settings_of(folder / CONFIG)
    if name is None:
        return _class(str(own.get("_class_name"))).from_pretrained(folder, local_files_only=True)
    kind, settings = NAMED[name]
    return _class(kind).from_config(own, **settings)


def _class(name: str) -> Any:
    if name in UNSEEDED:
        raise ValueError(f"its scheduler {name} draws noise that no seed of an image decides.")
    kind: Any = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise ValueError(f"diffusers has no scheduler {name!r}.")  # noqa: TRY004 - the folder's value, not ours
    return kind
