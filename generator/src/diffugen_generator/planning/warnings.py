"""Warnings: valid settings of a manifest that have no effect. Shown with a plan; never a fault."""

from __future__ import annotations

from diffugen_api.plan import Expansion


def warnings_of(expansion: Expansion) -> list[str]:
    """Return a sentence for each setting of a spec that has no effect."""
    words = expansion.unnamed_background()
    if not words:
        return []
    warning = (
        f"spec.labeling.attention.background: no prompt names {', '.join(words)}; a background word competes for "
        "pixels only in images whose prompt names it."
    )
    return [warning]
