"""Datasets and their stages as tables with bars: pure functions of what the API server sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]

_COLORS = {"Succeeded": "green", "Running": "cyan", "Failed": "red", "Suspended": "yellow"}
BAR_WIDTH = 20


def datasets_table(datasets: Sequence[Json]) -> Table:
    """Return one line for each dataset."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("NAME", "STATE", "STEP", "PROGRESS", "", "RATE", "LEFT", "REASON"):
        table.add_column(column, no_wrap=column != "REASON")
    for dataset in datasets:
        summary = dataset.get("status", {}).get("summary", {})
        done, total = _fraction(summary.get("progress", ""))
        table.add_row(
            dataset["metadata"]["name"],
            _state(state_of(dataset)),
            summary.get("stage", ""),
            _bar(done, total),
            summary.get("progress", ""),
            rate(summary),
            duration(summary.get("etaSeconds")),
            summary.get("reason", ""),
        )
    return table


def dataset_view(dataset: Json) -> RenderableType:
    """Return a dataset's stages, and below them what its conditions say."""
    status = dataset.get("status", {})
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("STAGE", "KIND", "STATE", "PROGRESS", "", "REUSED", "SHARDS", "RATE", "LEFT"):
        table.add_column(column, no_wrap=True)
    for stage in status.get("stages", []):
        samples, shards = stage.get("samples", {}), stage.get("shards", {})
        done, total = samples.get("done", 0), samples.get("total", 0)
        failed = f", {shards['failed']} failed" if shards.get("failed") else ""
        table.add_row(
            stage["name"],
            stage["kind"],
            _state(stage["state"]),
            _bar(done, total),
            f"{done}/{total}",
            str(samples.get("reused", 0)),
            f"{shards.get('succeeded', 0)}/{shards.get('total', 0)}{failed}",
            rate(stage),
            duration(stage.get("etaSeconds")),
        )
    lines: list[RenderableType] = [
        Text.assemble((dataset["metadata"]["name"], "bold"), "  ", _state(state_of(dataset)))
    ]
    if status.get("stages"):
        lines.append(table)
    lines += [Text(f"{said['reason']}: {said['message']}") for said in speaking(dataset)]
    if published := status.get("dataset"):
        lines.append(Text(f"{published['samples']} samples, {published['instances']} objects at {published['uri']}"))
    return Group(*lines)


def state_of(dataset: Json) -> str:
    """Return the state; Pending where the operator has not seen the present spec yet."""
    summary = dataset.get("status", {}).get("summary", {})
    seen = summary.get("observedGeneration") == dataset["metadata"]["generation"]
    return str(summary.get("state", "Pending")) if seen else "Pending"


def speaking(dataset: Json) -> list[Json]:
    """Return the conditions that say something: each true one but Ready, and each message once."""
    found: dict[str, Json] = {}
    for condition in dataset.get("status", {}).get("conditions", []):
        if condition["status"] == "True" and condition["type"] != "Ready":
            found.setdefault(condition.get("message", ""), condition)
    return list(found.values())


def rate(source: Json) -> str:
    """Return images a second as text."""
    return f"{source['imagesPerSecond']}/s" if source.get("imagesPerSecond") else ""


def duration(seconds: int | None) -> str:
    """Return a time left as text, with its two largest units."""
    if seconds is None:
        return ""
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours >= 24:
        return f"{hours // 24}d {hours % 24}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {seconds % 60}s" if minutes else f"{seconds}s"


def _state(state: str) -> Text:
    return Text(state, style=_COLORS.get(state, ""))


def _fraction(progress: str) -> tuple[int, int]:
    done, _, total = progress.partition("/")
    return (int(done), int(total)) if total else (0, 0)


def _bar(done: int, total: int) -> RenderableType:
    return ProgressBar(total=total or 1, completed=done, width=BAR_WIDTH)
