"""What of a manifest is allowed, and does nothing: told beside a plan, and never a fault."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from diffugen_api.sample_families import unnamed_background
from diffugen_api.v1alpha1 import LabeledDatasetSpec


def warnings_of(spec: LabeledDatasetSpec) -> list[str]:
    """Return what of a spec works, and does nothing."""
    words = unnamed_background(spec)
    if not words:
        return []
    told = (
        f"spec.labeling.attention.background: no prompt names {', '.join(words)}; a background word competes for "
        "pixels only in pictures whose prompt names it."
    )
    return [told]


def show_warnings(console: Console, warnings: Sequence[str]) -> None:
    """Print what of a manifest works, and does nothing."""
    for warning in warnings:
        console.print(f"[yellow]![/] {escape(warning)}", highlight=False, soft_wrap=True)
