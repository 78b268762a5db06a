"""Measures time and memory of a plan with a million samples: the bounds are 60 s and 500 MB resident.

There are three stores: an empty one (all samples must be drawn), a complete one (nothing must be done), and one whose
labels have another threshold (all samples must be labeled again). The spec is the worst case for memory: every sample
has its own prompt. Each case runs in its own process. Shards go to a real folder, which is deleted afterwards. The
store lists keys without files: with a million files, the benchmark would measure the file system.

Run: python benchmarks/plan.py [--samples N]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion, StageRecipe, revision_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.planning.plan import plan, stages_of
from diffugen_generator.store.folder import FolderStore

SECONDS = 60.0
MEGABYTES = 500.0
MODEL = "builtin://shapes"
"""Any model works: the benchmark does not draw."""
RESULTS = Path(__file__).parent / "results" / "plan.json"


@dataclass(frozen=True)
class Measured:
    case: str
    samples: int
    draw: int
    relabel: int
    reused: int
    shards: int
    seconds: float
    megabytes: float

    @property
    def within(self) -> bool:
        return self.seconds <= SECONDS and self.megabytes <= MEGABYTES


class ListedStore(FolderStore):
    """A folder whose listings come from files of keys, sorted and divided as in a bucket."""

    def __init__(self, root: Path, listings: Path) -> None:
        super().__init__(root)
        self.listings = listings

    def list(self, prefix: str) -> Iterator[str]:
        spread = prefix.rstrip("/").rsplit("/", 1)[-1]
        folder = prefix if len(spread) != 2 else prefix[: -len(spread) - 1]
        path = self.listings / folder.replace("/", "+")
        if not path.is_dir():
            return
        for part in sorted(path.iterdir()) if folder == prefix else [path / spread]:
            if part.exists():
                with part.open() as keys:
                    yield from (key.rstrip("\n") for key in keys)


def spec_of(samples: int) -> LabeledDatasetSpec:
    side = round(samples**0.5)
    return LabeledDatasetSpec.model_validate(
        {
            "classes": [{"name": "car"}],
            "prompts": {
                "templates": ["a {object}, {view}, {place}, overcast weather"],
                "variables": {
                    "object": ["car"],
                    "view": [f"view number {n}" for n in range(side)],
                    "place": [f"place number {n}" for n in range(-(-samples // side))],
                },
            },
            "stages": [{"name": "base", "txt2img": {"model": MODEL}}],
        }
    )


def write_listings(spec: LabeledDatasetSpec, recipe: StageRecipe, kinds: set[str], folder: Path) -> None:
    """Write the keys of a store that has all objects of `kinds`."""
    keys: dict[str, dict[str, list[str]]] = {}
    for sample in Expansion(spec).samples_of(recipe):
        for kind, top, key in (
            ("image", layout.samples("base"), layout.image("base", sample.id, recipe.extension)),
            ("image", layout.samples("base"), layout.recipe("base", sample.id)),
            (
                "evidence",
                layout.evidence_folder("base", recipe.evidence_id),
                layout.evidence("base", recipe.evidence_id, sample.id),
            ),
            (
                "label",
                layout.labels_folder("base", recipe.label_id),
                layout.label("base", recipe.label_id, sample.id),
            ),
        ):
            if kind in kinds:
                keys.setdefault(top, {}).setdefault(sample.id[:2], []).append(key)
    for top, spread in keys.items():
        path = folder / top.replace("/", "+")
        path.mkdir(parents=True)
        for digits, lines in spread.items():
            (path / digits).write_text("".join(f"{line}\n" for line in sorted(lines)))


def measure(case: str, kinds: set[str], samples: int) -> Measured:
    """Plan once, in two separate processes: one prepares the listings, the other one plans."""
    with tempfile.TemporaryDirectory() as temporary:
        context = multiprocessing.get_context("spawn")
        with context.Pool(1, maxtasksperchild=1) as pool:
            pool.apply(_prepare, (kinds, samples, Path(temporary)))
            return pool.apply(_plan, (case, samples, Path(temporary)))


def _prepare(kinds: set[str], samples: int, temporary: Path) -> None:
    spec = spec_of(samples)
    write_listings(spec, stages_of(Expansion(spec))[0].recipe, kinds, temporary / "listings")


def _plan(case: str, samples: int, temporary: Path) -> Measured:
    spec = spec_of(samples)
    order = WorkOrder(namespace="bench", name="plan", revision=revision_of(spec), spec=spec)
    store = ListedStore(temporary / "store", temporary / "listings")
    began = time.perf_counter()
    outcome = plan(order, store)
    seconds = time.perf_counter() - began
    assert outcome.plan is not None
    [stage] = outcome.plan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    counts = (stage.total, stage.draw, stage.relabel, stage.reused, stage.shards)
    return Measured(case, *counts, seconds=round(seconds, 1), megabytes=round(peak, 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=1_000_000)
    samples = parser.parse_args().samples
    measured = [
        measure("empty store", set(), samples),
        measure("everything there", {"image", "evidence", "label"}, samples),
        measure("another threshold", {"image", "evidence"}, samples),
    ]
    table = Table(title=f"Planning {samples:,} samples, each with a prompt of its own", box=None)
    for column in (
        "store",
        "draw",
        "relabel",
        "reused",
        "shards",
        "seconds",
        "peak MB",
        f"within {SECONDS:g} s, {MEGABYTES:g} MB",
    ):
        table.add_column(column, justify="left" if column == "store" else "right")
    for m in measured:
        counts = (f"{m.draw:,}", f"{m.relabel:,}", f"{m.reused:,}", f"{m.shards:,}")
        table.add_row(m.case, *counts, f"{m.seconds:.1f}", f"{m.megabytes:.0f}", "yes" if m.within else "NO")
    Console(width=110).print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    report = {
        "measuredAt": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "bound": {"seconds": SECONDS, "megabytes": MEGABYTES},
        "cases": [asdict(m) | {"within": m.within} for m in measured],
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(m.within for m in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
