"""Reports the figures with their bounds: a table for people, JSON for comparison."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.scale.measuring import NICE, REST_SECONDS, WORK_SECONDS, Measured
from rich.console import Console
from rich.table import Table

from devcluster.binaries import KUBERNETES_VERSION
from devcluster.controlplane import GOGC

RESULTS = Path(__file__).parents[1] / "results" / "scale.json"
LINEAR_WITHIN = 1.25
"""The largest allowed ratio of the cost of a dataset at the greatest number to the cost at a tenth of that number."""
BOUNDS: Mapping[str, float] = {
    "apply_to_job_p95_s": 0.6,
    "cpu_ms_per_dataset": 40.0,
    "drain_s": 90.0,
    "rss_mb": 110.0,
    "writes_per_dataset": 13.0,
    "restart_to_synced_s": 5.0,
    "writes_at_rest": 0.0,
    "cpu_growth": LINEAR_WITHIN,
}
"""The upper bound of each figure."""


@dataclass(frozen=True)
class Bound:
    """A figure and its upper bound."""

    name: str
    what: str
    value: float | None
    most: float

    @property
    def holds(self) -> bool:
        """Whether the figure exists and is within its bound."""
        return self.value is not None and self.value <= self.most


@dataclass(frozen=True)
class Report:
    """All figures, and the circumstances."""

    measured: Sequence[Measured]
    bounds: Sequence[Bound]
    circumstances: dict[str, Any]

    @property
    def holds(self) -> bool:
        """Whether every figure is within its bound."""
        return all(bound.holds for bound in self.bounds) and not any(m.fault for m in self.measured)


def report(measured: Sequence[Measured], *, rate: float, load: float, seconds: float) -> Report:
    """Return the report on sizes in ascending order; the last size has bounds."""
    last, tenth = measured[-1], measured[-2]
    resident = max(last.rss_mb, last.restart_rss_mb or 0)
    waited = last.apply_to_job.p95 if last.apply_to_job else None
    growth = _two(last.cpu_per_dataset / tenth.cpu_per_dataset) if tenth.cpu_s else None
    found: Mapping[str, tuple[str, float | None]] = {
        "apply_to_job_p95_s": ("apply to first Job, p95, s", waited),
        "cpu_ms_per_dataset": ("CPU of the operator for a dataset, ms", round(1000 * last.cpu_per_dataset, 1)),
        "drain_s": ("last arrival to all ready, s", round(last.drain_s, 1)),
        "rss_mb": ("resident memory, peak, MB", round(resident, 1)),
        "writes_per_dataset": ("writes for a dataset, beyond progress", _two(last.writes_per_dataset)),
        "restart_to_synced_s": ("restart to synced, s", _two(last.restart_to_synced_s)),
        "writes_at_rest": (f"writes in {REST_SECONDS:g} s at rest", last.writes_at_rest),
        "cpu_growth": (f"CPU for one of {last.datasets:,} against one of {tenth.datasets:,}", growth),
    }
    bounds = [Bound(name, *found[name], most) for name, most in BOUNDS.items()]
    circumstances = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "arrivals_per_s": rate,
        "jobs_per_dataset": 3,
        "pods_work_s": WORK_SECONDS,
        "took_s": round(seconds),
        "machine": {
            "cpus": os.cpu_count(),
            "cpu": _cpu(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
            "load_before": round(load, 2),
        },
        "versions": {
            "python": platform.python_version(),
            "kubernetes": KUBERNETES_VERSION,
            **{name: version(name) for name in ("diffugen-operator", "kopf", "aiohttp", "pydantic")},
        },
        "control_plane": (
            "etcd (no fsync), kube-apiserver, kube-controller-manager and kube-scheduler (limits of their clients: 500 "
            "requests a second, bursts of 1,000) on the same processors as the operator; pods are played; the last "
            f"three run at nice {NICE}, as each has processors of its own elsewhere; GOGC={GOGC} for the control "
            "plane; one operator, no Lease"
        ),
    }
    return Report(measured, bounds, circumstances)


def show(found: Report, console: Console) -> None:
    """Print the tables."""
    last = found.measured[-1]
    table = Table(title=f"{last.datasets:,} datasets of three Jobs, {found.circumstances['arrivals_per_s']:g} a second")
    for column in ("figure", "measured", "bound", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for bound in found.bounds:
        value = "not measured" if bound.value is None else f"{bound.value:g}"
        table.add_row(bound.what, value, f"<= {bound.most:g}", "" if bound.holds else "[bold red]missed")
    console.print(table)

    table = Table(title="Cost against number")
    names = (
        "datasets",
        "ready",
        "apply to Job p50/95/99",
        "Job to status p50/95/99",
        "drain s",
        "CPU ms",
        "writes",
    )
    for column in (*names, "RSS MB"):
        table.add_column(column, justify="right")
    for one in found.measured:
        table.add_row(
            f"{one.datasets:,}",
            f"{one.ready:,}",
            _quantiles(one.apply_to_job),
            _quantiles(one.job_to_status),
            f"{one.drain_s:.1f}",
            f"{1000 * one.cpu_per_dataset:.1f}",
            f"{one.writes_per_dataset:.2f}",
            f"{one.rss_mb:.0f}",
        )
    console.print(table)
    for one in found.measured:
        if one.fault:
            console.print(f"[bold red]{one.datasets:,} datasets: {one.fault}")


def write(found: Report, path: Path) -> None:
    """Write the figures as JSON."""
    last = found.measured[-1]
    data = {
        "datasets": last.datasets,
        **{bound.name: bound.value for bound in found.bounds},
        "holds": found.holds,
        "bounds": {bound.name: bound.most for bound in found.bounds},
        **found.circumstances,
        "sizes": [
            asdict(one)
            | {
                "cpu_s_per_dataset": round(one.cpu_per_dataset, 4),
                "writes_per_dataset": _two(one.writes_per_dataset),
            }
            for one in found.measured
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, default=str) + "\n")


def _two(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _quantiles(found: Any) -> str:
    return "" if found is None else f"{found.p50:.2f} / {found.p95:.2f} / {found.p99:.2f}"


def _cpu() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.processor()
