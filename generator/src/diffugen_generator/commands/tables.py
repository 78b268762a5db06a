"""Prints results as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from diffugen_api.contract import StagePlan
from diffugen_api.plan import Expansion
from diffugen_api.prompts import combined, row_prompts
from diffugen_api.v1alpha1 import model_of
from diffugen_generator.commands.manifests import InvalidManifest
from diffugen_generator.commands.warnings import show_warnings
from diffugen_generator.planning.warnings import warnings_of
from diffugen_generator.results import NO_CAPTION, LabelResult, RunResult
from diffugen_generator.telemetry.progress import duration

_SHOWN = 12
"""The most classes and templates that are listed one by one."""


def show_plan(
    console: Console, expansion: Expansion, name: str, revision: str, plans: Sequence[StagePlan], *, store_checked: bool
) -> None:
    """Print a plan; `store_checked` is whether it counted the objects of a store."""
    console.print(f"[bold]{name}[/]  revision {revision}", highlight=False)
    table = Table(box=None, header_style="dim", pad_edge=False)
    graph = any(stage.source is not None for stage in expansion.spec.stages)
    for column in ("stage", "kind", *(("from",) if graph else ()), "model"):
        table.add_column(column)
    for column in ("samples", "reused", "to draw", "to relabel", "shards"):
        table.add_column(column, justify="right")
    for stage, found in zip(expansion.spec.stages, plans, strict=True):
        reused, relabel = (f"{count:,}" if store_checked else "-" for count in (found.reused, found.relabel))
        row = (f"{found.total:,}", reused, f"{found.draw:,}", relabel, f"{found.shards:,}")
        source = (stage.source or "",) if graph else ()
        trained = stage.textual_inversion
        model = trained.model if trained is not None else model_of(expansion.spec.stages, stage)[0]
        table.add_row(stage.name, stage.kind, *source, model, *row)
    console.print(table)
    if not store_checked:
        hint = (
            "no store was checked, so every sample counts as missing; --store DIR or s3://BUCKET/PREFIX counts what it "
            "holds"
        )
        console.print(f"[dim]{hint}[/]", highlight=False, soft_wrap=True)
    of_file = " and of the file" if expansion.rows is not None else ""
    console.print(f"\n[dim]prompts, the first of each template{of_file}[/]")
    for prompt in first_prompts(expansion):
        console.print(f"  {prompt}", markup=False, highlight=False, soft_wrap=True)
    show_warnings(console, warnings_of(expansion))


def first_prompts(expansion: Expansion) -> list[str]:
    """Return the first prompt of each of the first templates, then those of the first rows of the file."""
    values = {name: given[0] for name, given in expansion.spec.prompts.variables.items()}
    filled = combined(expansion.spec, expansion.templates)
    prompts = [template.render(values) for _, template in filled]
    for row in expansion.rows.examples[:_SHOWN] if expansion.rows is not None else ():
        prompts += [each.prompt for each in row_prompts(row, expansion.templates)]
    return prompts[:_SHOWN]


def show_run(console: Console, result: RunResult) -> None:
    """Print the result of a run: stages, content of the dataset, and its location."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("stage")
    graph = any(stage.source is not None for stage in result.order.spec.stages)
    parts = ("samples", "reused", "drawn", "labelled", *(("skipped",) if graph else ()))
    for part in parts:
        table.add_column("labeled" if part == "labelled" else part, justify="right")  # the JSON's key stays
    table.add_column("time", justify="right")
    for stage in result.stages:
        row = stage.row()
        counts = (f"{row[part]:,}" for part in parts)
        table.add_row(stage.plan.name, *counts, duration(stage.seconds))
    console.print()
    console.print(table)
    published = result.published
    console.print(
        f"\n[bold]{published.samples:,}[/] images ({_counts(result.splits)}), {published.rejected:,} rejected, "
        f"[bold]{published.instances:,}[/] objects ({_counts(result.classes)})",
        highlight=False,
        soft_wrap=True,
    )
    _show_places(console, result)


def show_labels(console: Console, result: LabelResult) -> None:
    """Print the result of `diffugen label`: files, labels, and the location of the dataset."""
    counts, published = result.run.stages[0].counts, result.run.published
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("class", "objects"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, objects in result.run.classes.items():
        table.add_row(name, f"{objects:,}")
    console.print()
    console.print(table)
    skipped, rejected = sum(result.skipped.values()), sum(result.rejected.values())
    files = counts.total + skipped
    lines = (
        (
            f"\n{files:,} files: {counts.total:,} images ({result.converted:,} converted to upright RGB), "
            f"{skipped:,} skipped{_reasons(result.skipped)}{_others(result.others)}"
        ),
        (
            f"{counts.total:,} images: {counts.seen:,} seen by a model, {counts.labelled - counts.seen:,} from stored "
            f"evidence, {counts.reused:,} reused"
        ),
        (
            f"[bold]{published.samples:,}[/] published ({_counts(result.run.splits)}), {rejected:,} rejected"
            f"{_reasons(result.rejected)}, [bold]{published.instances:,}[/] objects, {duration(result.run.seconds)}"
        ),
    )
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    if without := result.skipped.get(NO_CAPTION, 0):
        console.print(
            f"[yellow]![/] images without a caption, skipped: {without:,}; attention cannot say that a class is "
            "absent: write a caption file beside each image, or give --detector or --presence 0.05",
            highlight=False,
            soft_wrap=True,
        )
    if result.nameless:
        console.print(
            f"[yellow]![/] images whose caption names no class: {result.nameless:,}; attention labels nothing in "
            "them: name a class or one of its words in the caption, or use --detector alone",
            highlight=False,
            soft_wrap=True,
        )
    _show_places(console, result.run)


def _others(count: int) -> str:
    return f"; {count:,} other {'file' if count == 1 else 'files'}" if count else ""


def show_faults(console: Console, error: InvalidManifest) -> None:
    """Print the faults of a manifest, one a line."""
    count = len(error.faults)
    console.print(f"[red]✘[/] {error.file}: {count} {'fault' if count == 1 else 'faults'}", highlight=False)
    for fault in error.faults:
        path = f"[bold]{fault.path.replace('[', chr(92) + '[')}[/]: " if fault.path else ""
        console.print(f"  {path}{fault.message.replace('[', chr(92) + '[')}", highlight=False, soft_wrap=True)


def _show_places(console: Console, result: RunResult) -> None:
    """Print where the dataset is, and what to open in a browser."""
    places = {"dataset": result.published.uri, "contact sheet": result.contact_sheet, "report": result.report}
    for name, where in places.items():
        console.print(f"[dim]{name}[/]  {where}", highlight=False, soft_wrap=True)


def _reasons(counts: Mapping[str, int]) -> str:
    return f" ({_counts(counts)})" if counts else ""


def _counts(counts: Mapping[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:_SHOWN]]
    if len(counts) > _SHOWN:
        shown.append(f"{len(counts) - _SHOWN} more")
    return ", ".join(shown)
