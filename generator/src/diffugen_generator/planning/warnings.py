"""Warnings: valid parts of a spec that have no effect, or another one than they seem. They are never faults."""

from __future__ import annotations

from diffugen_api.plan import Expansion


def warnings_of(expansion: Expansion) -> list[str]:
    """Return a sentence for each valid part of a spec that has no effect, or another one than it seems."""
    return expansion.warnings()
