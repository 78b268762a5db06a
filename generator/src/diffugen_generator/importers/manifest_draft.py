"""Notes about a manifest during the conversion: comments on its values, and the configuration key of each value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from diffugen_generator.importers.commented_yaml import Path
from diffugen_generator.importers.json_fields import Problem


@dataclass(frozen=True, slots=True)
class Options:
    """The caller's options."""

    syntax: Literal["none", "auto"] = "auto"
    """With `none`, weights are read as text, as in DiffuGen. With `auto`, they are applied."""
    model: str = ""
    """A model that replaces all models of the file; empty to keep them."""
    detector: str = ""
    """An instance segmenter of transformers in place of `label_model`; empty to keep it."""


@dataclass(slots=True)
class ManifestDraft:
    """The notes about a manifest's values."""

    comments: dict[Path, list[str]] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Keys of the configuration that are not in the manifest, and why."""
    origins: dict[str, str] = field(default_factory=dict)
    """The key of the configuration for each field of the manifest, and for all fields in it."""
    problems: list[Problem] = field(default_factory=list)
    differences: dict[str, list[str]] = field(default_factory=dict)
    """Reasons why a stage's number of samples can differ from that of DiffuGen's program, by stage."""

    def comment(self, path: Path, text: str) -> None:
        """Put a comment above a value."""
        self.comments.setdefault(path, []).append(text)

    def leave_out(self, key: str, why: str) -> None:
        """Record a key that is not in the manifest."""
        self.left_out.append((key, why))

    def comes_from(self, path: Path, key: str) -> None:
        """Record the key that a value comes from."""
        self.origins[dotted(path)] = key

    def problem(self, key: str, message: str) -> None:
        """Add a problem of a key."""
        self.problems.append(Problem(key, message))

    def differs(self, stage: str, why: str) -> None:
        """Record why a stage can have another number of samples."""
        self.differences.setdefault(stage, []).append(why)

    def key_of(self, path: str) -> str:
        """Return the key of the configuration that a field of the manifest comes from; the field itself for none."""
        below = [origin for origin in self.origins if path == origin or path.startswith((f"{origin}.", f"{origin}["))]
        if not below:
            return path
        nearest = max(below, key=len)
        return self.origins[nearest] + path.removeprefix(nearest)


def dotted(path: Path) -> str:
    """Return a path as manifests spell it: `spec.stages[0].txt2img`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def shown(value: Any) -> str:
    """Return a value of the configuration for a comment, on one line."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 120 else f"{text[:117]}…"
