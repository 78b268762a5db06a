"""Prints the results of the commands for published datasets as tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from diffugen_generator.commands.diff import CHANGES, DiffResult
from diffugen_generator.commands.prune import KINDS, PruneResult
from diffugen_generator.commands.pull import PullResult
from diffugen_generator.commands.verify import VerifyResult
from diffugen_generator.commands.write_again import WrittenResult

_SHOWN = 5


def show_pull(console: Console, result: PullResult) -> None:
    """Print where a revision is now, and what was fetched."""
    there = result.files - 1 - result.fetched
    console.print(
        f"[green]✔[/] revision {result.revision}: {result.files:,} files, {result.fetched:,} fetched "
        f"({_size(result.fetched_bytes)}), {there:,} there before",
        highlight=False,
        soft_wrap=True,
    )
    for name, where in (("folder", result.folder), ("current", result.folder.parent / "current")):
        console.print(f"[dim]{name}[/]  {where}", highlight=False, soft_wrap=True)


def show_verify(console: Console, result: VerifyResult) -> None:
    """Print how much was checked, then one line for each fault."""
    mark = "[red]✘[/]" if result.faults else "[green]✔[/]"
    faults = f"{len(result.faults):,} fault{'' if len(result.faults) == 1 else 's'}"
    console.print(
        f"{mark} revision {result.revision}: {result.files:,} files and {result.samples:,} samples checked, {faults}",
        highlight=False,
        soft_wrap=True,
    )
    if result.not_pulled:
        console.print(f"[dim]not pulled, so not checked: {', '.join(result.not_pulled)}[/]", highlight=False)
    if result.unchecked:
        console.print(f"[dim]files of an earlier version without a SHA-256: {result.unchecked:,}[/]", highlight=False)
    for fault in result.faults:
        console.print(f"  {fault.key}: {fault.why}", markup=False, highlight=False, soft_wrap=True)


def show_prune(console: Console, result: PruneResult) -> None:
    """Print what was or would be deleted, by kind."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("", "objects", "size"):
        table.add_column(column, justify="right" if column else "left")
    for kind in KINDS:
        table.add_row(kind, f"{result.objects[kind]:,}", _size(result.bytes[kind]))
    console.print(f"kept: {', '.join(result.kept)}", highlight=False, soft_wrap=True)
    if result.unfinished:
        console.print(f"not finished, so kept: {', '.join(result.unfinished)}", highlight=False, soft_wrap=True)
    console.print(f"not kept: {', '.join(result.removed) or 'none'}", highlight=False, soft_wrap=True)
    console.print(table)
    if not result.deleted:
        console.print("[dim]nothing was deleted; --delete deletes it[/]", highlight=False)


def show_diff(console: Console, result: DiffResult) -> None:
    """Print the counts of each kind of change, classes and settings."""
    console.print(f"A {result.a}\nB {result.b}", highlight=False, soft_wrap=True, markup=False)
    if result.is_equal:
        console.print(f"[green]✔[/] no difference in {result.equal:,} samples", highlight=False)
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("samples", "", "", "such as"):
        table.add_column(column, justify="right" if not column else "left")
    table.add_row("equal", f"{result.equal:,}", "", "")
    for change, meaning in CHANGES.items():
        if count := result.counts[change]:
            table.add_row(change, f"{count:,}", meaning, ", ".join(result.samples[change][:2]))
    console.print(table)
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("class", "objects in A", "in B", "change"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, (first, second) in result.classes.items():
        table.add_row(name, f"{first:,}", f"{second:,}", f"{second - first:+,}")
    console.print(table)
    for path, (first, second) in result.settings.items():
        console.print(f"{path}: {_short(first)} → {_short(second)}", markup=False, highlight=False, soft_wrap=True)


def show_written(console: Console, result: WrittenResult) -> None:
    """Print what was written, and where."""
    dataset = result.dataset
    console.print(
        f"[green]✔[/] {dataset['samples']:,} images with {dataset['instances']:,} objects in "
        f"{', '.join(result.formats)}",
        highlight=False,
        soft_wrap=True,
    )
    if result.duplicates:
        console.print(f"[dim]samples that came more than once, written once: {result.duplicates:,}[/]", highlight=False)
    console.print(f"[dim]folder[/]  {result.folder}", highlight=False, soft_wrap=True)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
