"""How warnings of a plan are printed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape


def show_warnings(console: Console, warnings: Sequence[str]) -> None:
    """Print warnings, one a line."""
    for warning in warnings:
        console.print(f"[yellow]![/] {escape(warning)}", highlight=False, soft_wrap=True)
