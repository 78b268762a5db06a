"""Measures the speed of the stage, compared with diffusers' pipeline (one by one and batched) and with DAAM's labels.

All ways use the same model, steps, guidance, prompts and seeds, in one process. They run in turn, so that other load of
the machine affects all of them equally, and the median repetition counts; `speedup_over_batched_pipeline` compares the
best repetition of each. The pipelines only draw, into memory, with
torch's default number of threads. The stage also encodes, labels and stores. On the CPU the benchmark uses the built-in
model, and a pipeline of Stable Diffusion 1.5's layers with random weights, at its own 25 steps with guidance and at a
size that a CPU can draw. If there is a GPU, the latter is drawn on it, at 512 x 512 in bf16.

Run: python -m benchmarks.throughput [--only NAME] [--side PIXELS] [--quick]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from benchmarks.throughput.paths import THREADS, Case, Timing, Ways
from benchmarks.throughput.random_models import write_sd15
from rich.console import Console
from rich.table import Table

from diffugen_generator.models.resolve import resolve

RESULTS = Path(__file__).parent.parent / "results" / "throughput.json"
SMALL, LARGE = "builtin://shapes", "SD 1.5 shape"
BATCHED = "speedup_over_batched_pipeline"
BOUNDS: Mapping[str, Mapping[str, tuple[str, float]]] = {
    SMALL: {
        BATCHED: (">=", 1.0),
        "wall_over_model_time": ("<=", 1.10),
    },
    LARGE: {
        BATCHED: (">=", 1.0),
        "label_overhead_fraction": ("<=", 0.03),
        "wall_over_model_time": ("<=", 1.05),
    },
}
ON_GPU: Mapping[str, tuple[str, float]] = {"speedup_over_daam": (">=", 4.0)}
"""Further bounds if there is a GPU. On a CPU, a batch is hardly faster than the single images of DAAM-style labels."""

console = Console(width=None if sys.stdout.isatty() else 120)


def small() -> Case:
    model = resolve(SMALL)
    return Case(SMALL, model, "cpu", side=64, batch=16, batched=96, single=12, repetitions=5, guidance=3.0)


def large(folder: Path) -> Case:
    with console.status("writing the random model"):
        write_sd15(folder, resolve(SMALL))
    model = resolve(str(folder))
    if torch.cuda.is_available():
        return Case(LARGE, model, "cuda", side=512, batch=16, batched=64, single=8, repetitions=3)
    return Case(LARGE, model, "cpu", side=128, batch=4, batched=4, single=1, repetitions=3)


def measure(case: Case) -> dict[str, Any]:
    """Run the ways of one case in turn, after one round with few steps that does not count."""
    torch.set_num_threads(THREADS)  # a stage before may have set its own
    warm = Ways(replace(case, steps=2, batched=case.batch, single=1))
    for way in warm.all().values():
        way()
    del warm
    gc.collect()
    ways = Ways(case)
    timings: dict[str, list[Timing]] = {name: [] for name in ways.all()}
    for turn in range(case.repetitions):
        for name, way in ways.all().items():
            with console.status(f"{case.name}: {name}, turn {turn + 1} of {case.repetitions}"):
                timings[name].append(way())
            last = timings[name][-1]
            console.print(f"[dim]{case.name}: {name}: {last.images} images in {last.seconds:.1f} s[/]")
    return report_of(case, timings)


def report_of(case: Case, timings: dict[str, list[Timing]]) -> dict[str, Any]:
    rates = {name: _median(each.images / each.seconds for each in some) for name, some in timings.items()}
    cpu = {name: _median(each.cpu_seconds / each.images for each in some) for name, some in timings.items()}
    best = {name: max(each.images / each.seconds for each in some) for name, some in timings.items()}
    least = {name: min(each.cpu_seconds / each.images for each in some) for name, some in timings.items()}
    stage = timings["stage with labels"]
    labelled, plain = rates["stage with labels"], rates["stage without labels"]
    return {
        "case": case.name,
        "device": torch.cuda.get_device_name() if case.device == "cuda" else "cpu",
        "side": case.side,
        "steps": case.steps,
        "guidance": case.guidance,
        "batch": case.batch,
        "dtype": str(case.dtype).removeprefix("torch."),
        "threads": THREADS,
        "repetitions": case.repetitions,
        "imagesPerSecond": {name: round(rate, 4) for name, rate in rates.items()},
        "cpuSecondsPerImage": {name: round(seconds, 3) for name, seconds in cpu.items()},
        "label_overhead_fraction": round(_median(each.parts["look"] / each.seconds for each in stage), 4),
        "label_overhead_by_difference": round(1 - labelled / plain, 4),
        "speedup_over_daam": round(labelled / rates["DAAM-style labels"], 2),
        BATCHED: round(best["stage with labels"] / best["pipeline, batched"], 3),
        "cpu_seconds_over_batched_pipeline": round(least["stage with labels"] / least["pipeline, batched"], 3),
        "speedup_over_loop": round(labelled / rates["pipeline, one by one"], 2),
        "wall_over_model_time": round(_median(each.seconds / each.model_seconds for each in stage), 3),
        "stage_parts": stage[-1].parts,
        "timings": {name: [asdict(each) for each in some] for name, some in timings.items()},
    }


def _median(values: Any) -> float:
    return float(statistics.median(values))


def show(report: dict[str, Any]) -> None:
    size = f"{report['side']} x {report['side']}, {report['steps']} steps, guidance {report['guidance']:g}"
    table = Table(title=f"{report['case']}, {size}, {report['device']}", box=None)
    for column in ("way", "images/s", "of the stage", "CPU s an image"):
        table.add_column(column, justify="left" if column == "way" else "right")
    whole = report["imagesPerSecond"]["stage with labels"]
    for name, rate in report["imagesPerSecond"].items():
        table.add_row(name, f"{rate:.3f}", f"{rate / whole:.2f}", f"{report['cpuSecondsPerImage'][name]:.2f}")
    console.print(table)
    asked = Table(box=None)
    for column in ("figure", "measured", "bound", "holds"):
        asked.add_column(column, justify="left" if column == "figure" else "right")
    bounds = bounds_of(report)
    for key in ("speedup_over_daam", BATCHED, "label_overhead_fraction", "wall_over_model_time"):
        bound = bounds.get(key)
        told = (f"{bound['sign']} {bound['bound']:g}", "yes" if bound["holds"] else "NO") if bound else ("", "")
        if key in report:
            asked.add_row(key, f"{report[key]:.3f}", *told)
    console.print(asked)
    console.print()


def bounds_of(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the bounds of a case's figures, and whether they hold."""
    asked = {**BOUNDS[report["case"]], **(ON_GPU if report["device"] != "cpu" else {})}
    return {
        key: {
            "sign": sign,
            "bound": bound,
            "holds": report[key] >= bound if sign == ">=" else report[key] <= bound,
        }
        for key, (sign, bound) in asked.items()
        if key in report  # an earlier version measured fewer
    }


def summary_of(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures for the summary: the labels' cost for the large model, the others for each case."""
    by_case = {report["case"]: report for report in reports}
    large_or_small = by_case.get(LARGE) or by_case[SMALL]
    # an earlier version did not measure it
    batched = {name: report[BATCHED] for name, report in by_case.items() if BATCHED in report}
    return {
        "label_overhead_fraction": large_or_small["label_overhead_fraction"],
        "speedup_over_daam": {name: report["speedup_over_daam"] for name, report in by_case.items()},
        **({BATCHED: batched} if batched else {}),
        "wall_over_model_time": {name: report["wall_over_model_time"] for name, report in by_case.items()},
        "bounds": {name: bounds_of(report) for name, report in by_case.items()},
    }


def machine() -> dict[str, Any]:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].split(": ", 1)[1] if names else platform.processor(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "loadAverage": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers", "diffugen")},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=["small", "large"], help="measure one case; the other's figures are kept")
    parser.add_argument("--side", type=int, help="pixels of the large case's images")
    parser.add_argument("--quick", action="store_true", help="one repetition with two steps: does it run?")
    asked = parser.parse_args()
    began = machine()
    kept = json.loads(RESULTS.read_text())["cases"] if asked.only and RESULTS.exists() else []
    reports = {each["case"]: each for each in kept}
    with tempfile.TemporaryDirectory() as temporary:
        makers = {"small": small, "large": lambda: large(Path(temporary) / "sd15")}
        for name in [asked.only] if asked.only else makers:
            case = makers[name]()
            if asked.side and name == "large":
                case = replace(case, side=asked.side)
            if asked.quick:
                case = replace(case, repetitions=1, steps=2, batched=case.batch, single=1)
            report = measure(case) | {"measuredAt": datetime.now(UTC).isoformat(timespec="seconds"), "machine": began}
            reports[case.name] = report
            show(report)
            gc.collect()
    if not asked.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        cases = list(reports.values())
        RESULTS.write_text(json.dumps({**summary_of(cases), "machine": began, "cases": cases}, indent=2) + "\n")
    return 0 if all(bound["holds"] for report in reports.values() for bound in bounds_of(report).values()) else 1


if __name__ == "__main__":
    sys.exit(main())
