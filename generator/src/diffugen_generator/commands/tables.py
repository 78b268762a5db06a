"""Results as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from diffugen_api.contract import StagePlan
from diffugen_api.plan import templates_of
from diffugen_api.v1alpha1 import LabeledDataset, LabeledDatasetSpec, model_of
from diffugen_generator.commands.manifests import InvalidManifest
from diffugen_generator.commands.results import Labelled, RunResult
from diffugen_generator.commands.warnings import show_warnings, warnings_of
from diffugen_generator.telemetry.progress import duration

_SHOWN = 12
"""Classes and templates that are listed one by one."""


def show_plan(
    console: Console, dataset: LabeledDataset, revision: str, plans: Sequence[StagePlan], *, looked: bool
) -> None:
    """Print what a plan found; `looked` says whether it looked into a store."""
    console.print(f"[bold]{dataset.name}[/]  revision {revision}", highlight=False)
    table = Table(box=None, header_style="dim", pad_edge=False)
    graph = any(stage.source is not None for stage in dataset.spec.stages)
    for column in ("stage", "kind", *(("from",) if graph else ()), "model"):
        table.add_column(column)
    for column in ("samples", "reused", "to draw", "to relabel", "shards"):
        table.add_column(column, justify="right")
    for stage, found in zip(dataset.spec.stages, plans, strict=True):
        reused, relabel = (f"{count:,}" if looked else "-" for count in (found.reused, found.relabel))
        row = (f"{found.total:,}", reused, f"{found.draw:,}", relabel, f"{found.shards:,}")
        source = (stage.source or "",) if graph else ()
        table.add_row(stage.name, stage.kind, *source, model_of(dataset.spec.stages, stage)[0], *row)
    console.print(table)
    if not looked:
        hint = "no store was looked into, so all is to draw; --store DIR counts what a folder holds already"
        console.print(f"[dim]{hint}[/]", highlight=False, soft_wrap=True)
    console.print("\n[dim]prompts, the first of each template[/]")
    for prompt in first_prompts(dataset.spec):
        console.print(f"  {prompt}", markup=False, highlight=False, soft_wrap=True)
    show_warnings(console, warnings_of(dataset.spec))


def first_prompts(spec: LabeledDatasetSpec) -> list[str]:
    """Return the first prompt of each of the first templates."""
    values = {name: given[0] for name, given in spec.prompts.variables.items()}
    return [template.render(values) for template in templates_of(spec)[:_SHOWN]]


def show_run(console: Console, result: RunResult) -> None:
    """Print what a run did, what is in the dataset, and where it is."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("stage")
    graph = any(stage.source is not None for stage in result.order.spec.stages)
    parts = ("samples", "reused", "drawn", "labelled", *(("skipped",) if graph else ()))
    for column in (*parts, "time"):
        table.add_column(column, justify="right")
    for stage in result.stages:
        row = stage.row()
        counts = (f"{row[part]:,}" for part in parts)
        table.add_row(stage.plan.name, *counts, duration(stage.seconds))
    console.print()
    console.print(table)
    published = result.published
    console.print(
        f"\n[bold]{published.samples:,}[/] pictures ({_counts(result.splits)}), {published.rejected:,} rejected, "
        f"[bold]{published.instances:,}[/] objects ({_counts(result.classes)})",
        highlight=False,
        soft_wrap=True,
    )
    for name, where in (("dataset", published.uri), ("look at", result.contact_sheet)):
        console.print(f"[dim]{name}[/]  {where}", highlight=False, soft_wrap=True)


def show_labelled(console: Console, result: Labelled) -> None:
    """Print what was found in a folder of pictures, what was labelled in them, and where it is."""
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
            f"\n{files:,} files: {counts.total:,} pictures ({result.converted:,} converted to upright RGB), "
            f"{skipped:,} skipped{_reasons(result.skipped)}"
        ),
        (
            f"{counts.total:,} pictures: {counts.seen:,} looked at, {counts.labelled - counts.seen:,} decided anew, "
            f"{counts.reused:,} there already"
        ),
        (
            f"[bold]{published.samples:,}[/] published ({_counts(result.run.splits)}), {rejected:,} rejected"
            f"{_reasons(result.rejected)}, [bold]{published.instances:,}[/] objects, {duration(result.run.seconds)}"
        ),
    )
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    if result.uncaptioned and len(result.run.classes) > 1:
        console.print(
            f"[yellow]![/] pictures without a caption: {result.uncaptioned:,}; attention finds a place for every class "
            "in them, there or not: write a text file beside each, or take --detector alone",
            highlight=False,
            soft_wrap=True,
        )
    if result.nameless:
        console.print(
            f"[yellow]![/] pictures whose caption names no class: {result.nameless:,}; attention labels nothing in "
            "them: name there what they show, by a class or by a further word of one, or take --detector alone",
            highlight=False,
            soft_wrap=True,
        )
    for name, where in (("dataset", published.uri), ("look at", result.run.contact_sheet)):
        console.print(f"[dim]{name}[/]  {where}", highlight=False, soft_wrap=True)


def show_faults(console: Console, error: InvalidManifest) -> None:
    """Print all that is wrong with a manifest, a line for each fault."""
    count = len(error.faults)
    console.print(f"[red]✘[/] {error.file}: {count} {'fault' if count == 1 else 'faults'}", highlight=False)
    for fault in error.faults:
        path = f"[bold]{fault.path.replace('[', chr(92) + '[')}[/]: " if fault.path else ""
        console.print(f"  {path}{fault.message.replace('[', chr(92) + '[')}", highlight=False, soft_wrap=True)


def _reasons(counts: Mapping[str, int]) -> str:
    return f" ({_counts(counts)})" if counts else ""


def _counts(counts: Mapping[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:_SHOWN]]
    if len(counts) > _SHOWN:
        shown.append(f"{len(counts) - _SHOWN} more")
    return ", ".join(shown)
