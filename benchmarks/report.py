"""Measures the report: what it costs to write, and how soon a browser can use it. The bounds are 2 s for 10,000 samples
and 4 s for 100,000.

The samples are synthetic, their records are real: 20 classes, prompts of three variables, objects with masks, attention
maps, thumbnails, one rejected sample in ten. The report is written by the publish step's own code, and opened from its
folder in Chromium with an empty cache. It is usable when all samples can be filtered, the first image is painted, and a
filter over the words of the prompts has been applied.

Run: python -m benchmarks.report [--samples N ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion, Sample, StageRecipe, revision_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.bounded_pool import BoundedPool, in_order
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.planning.plan import stages_of
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.release import Release
from diffugen_generator.publishing.report.report import Report
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.publishing.tally import Tally
from diffugen_generator.quality.verdicts import TOO_FEW, Verdict
from diffugen_generator.samples import image_files
from diffugen_generator.samples.labels import Instance, Label, Rle
from diffugen_generator.store.folder import FolderStore

SIZES = (10_000, 100_000)
SECONDS = {10_000: 2.0, 100_000: 4.0}
MEGABYTES = 1024.0
RESULTS = Path(__file__).parent / "results" / "report.json"
TRIES = 5
"""Times that the page is opened; the median counts."""

_CLASSES = 20
_SIDE = 512
_READERS = 4


@dataclass(frozen=True)
class Measured:
    samples: int
    write_seconds: float
    write_peak_mb: float
    folder_mb: float
    files: int
    loaded_seconds: float
    """From the start of the navigation until all samples can be filtered."""
    painted_seconds: float
    """Until the first image is painted."""
    filter_seconds: float
    """From an edit of the words of the prompt until the gallery shows what passes."""

    @property
    def usable_seconds(self) -> float:
        return round(max(self.loaded_seconds, self.painted_seconds) + self.filter_seconds, 2)


def holds(row: dict[str, float]) -> bool:
    """Return whether a row of the results is within the bounds."""
    return row["usable_seconds"] <= SECONDS[int(row["samples"])] and row["write_peak_mb"] <= MEGABYTES


class _Pictures(FolderStore):
    """A folder whose images and evidence are a few that were made before; everything else is written for real."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        random = np.random.default_rng(0)
        smooth = random.uniform(0, 255, (16, 8, 8, 3))
        self._images = [
            image_files.encode(np.kron(each, np.ones((64, 64, 1))).astype(np.uint8), "jpeg") for each in smooth
        ]
        self._maps = [random.integers(0, 255, (3, 32, 32), dtype=np.uint8) for _ in range(16)]

    def read(self, key: str) -> bytes:
        number = hashlib.sha256(key.encode()).digest()[0] % 16
        if key.startswith("samples/"):
            return self._images[number]
        if key.startswith("evidence/"):
            return AttentionMaps(("class 1", "class 2"), ("street",), self._maps[number]).dumps()
        return super().read(key)


def spec_of(samples: int) -> LabeledDatasetSpec:
    side = math.ceil((samples / _CLASSES) ** 0.5)
    return LabeledDatasetSpec.model_validate(
        {
            "classes": [{"name": f"class {number}"} for number in range(1, _CLASSES + 1)],
            "image": {"width": _SIDE, "height": _SIDE, "format": "jpeg"},
            "prompts": {
                "templates": ["a photo of a {object} in the {view} of a street, {weather}, evening light, 35 mm"],
                "variables": {
                    "object": [f"class {number}" for number in range(1, _CLASSES + 1)],
                    "view": [f"view number {number}" for number in range(side)],
                    "weather": [f"weather number {number}" for number in range(side)],
                },
            },
            "stages": [{"name": "base", "txt2img": {"model": "builtin://shapes"}}],
        }
    )


def samples_of(spec: LabeledDatasetSpec, recipe: StageRecipe, count: int) -> Iterator[LabeledSample]:
    masks = []
    for number in range(64):
        mask = np.zeros((_SIDE, _SIDE), np.bool_)
        y, x, side = 3 * number, 5 * number, 40 + 2 * number
        mask[y : y + side, x : x + side] = True
        mask[y : y + side // 2, x : x + side // 3] = False
        mask = mask[:_SIDE, :_SIDE]
        masks.append(((float(x), float(y), float(side), float(side)), int(mask.sum()), Rle.of(mask)))
    for number, sample in enumerate(islice(Expansion(spec).samples_of(recipe), count)):
        yield _labeled(sample, number, masks)


def _labeled(
    sample: Sample, number: int, masks: list[tuple[tuple[float, float, float, float], int, Rle]]
) -> LabeledSample:
    digits = hashlib.sha256(sample.id.encode()).digest()
    objects = tuple(
        Instance(name, digits[at] / 255, *masks[digits[at + 4] % len(masks)])
        for at, name in enumerate([sample.variables["object"], f"class {digits[9] % _CLASSES + 1}"])
    )
    rejected = number % 10 == 0
    return LabeledSample(
        sample=sample,
        stage="base",
        split=("train", "train", "train", "val")[digits[8] % 4],
        image=f"samples/base/{sample.id}.jpeg",
        extension="jpeg",
        width=_SIDE,
        height=_SIDE,
        verdict=Verdict((), TOO_FEW) if rejected else Verdict(objects),
        label=Label(sample.id, objects),
    )


def write(samples: int, folder: Path) -> tuple[float, float]:
    """Write the report; return the seconds and the peak of resident memory in MB."""
    spec = spec_of(samples)
    order = WorkOrder(namespace="bench", name="report", revision=revision_of(spec), spec=spec)
    store = _Pictures(folder)
    recipes = [each.recipe for each in stages_of(Expansion(spec))]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack, BoundedPool(4) as pool:
        release = Release(store, "revisions/0000000000/", Path(scratch), pool, spec, stack, "0000000000")
        tally = Tally(release)
        report = Report(order, release, tally, recipes, expected=samples)

        def looked_at(sample: LabeledSample) -> LabeledSample:
            report.look(sample, StoredImage(store, sample))
            return sample

        for sample in in_order(looked_at, samples_of(spec, recipes[0], samples), workers=_READERS, window=32):
            tally.add(sample)
            report.add(sample, sample.row())
        report.finish({"base": "builtin://shapes"}, {}, drawn=True)
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(samples: int) -> Measured:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            seconds, peak = pool.apply(write, (samples, folder))
        files = [path for path in folder.rglob("*") if path.is_file()]
        tries = [opened((folder / "revisions" / "0000000000" / "report.html").as_uri(), samples) for _ in range(TRIES)]
        loaded, painted, filtered = (statistics.median(each) for each in zip(*tries, strict=True))
        return Measured(
            samples,
            write_seconds=round(seconds, 1),
            write_peak_mb=round(peak),
            folder_mb=round(sum(path.stat().st_size for path in files) / 1e6),
            files=len(files),
            loaded_seconds=round(loaded, 2),
            painted_seconds=round(painted, 2),
            filter_seconds=round(filtered, 3),
        )


def opened(address: str, samples: int) -> tuple[float, float, float]:
    """Open the page in a new browser; return the seconds until it is loaded, painted, and for a filter."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address)
        page.wait_for_selector("html[data-state=ready]", timeout=60_000)
        page.wait_for_selector(".tiles > li[data-painted]", timeout=60_000)
        assert page.evaluate("DiffuGenReport.app.table.rows") == samples
        loaded, painted = (
            page.evaluate(f"performance.getEntriesByName('{mark}')[0].startTime") for mark in ("ready", "painted")
        )
        filtered = page.evaluate(
            """() => {
              const begin = performance.now();
              DiffuGenReport.app.go({ words: "number 7 class 3" });
              return [performance.now() - begin, DiffuGenReport.app.rows.length];
            }"""
        )
        assert 0 < filtered[1] < samples
        browser.close()
    return loaded / 1000, painted / 1000, filtered[0] / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, nargs="*", default=SIZES)
    measured = [measure(samples) for samples in parser.parse_args().samples]
    rows = [asdict(each) | {"usable_seconds": each.usable_seconds} for each in measured]
    table = Table(title="The report", box=None)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{value:,}" for value in row.values()))
    Console(width=150).print(table)
    report = {
        "measuredAt": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "bound": {"seconds": SECONDS, "megabytes": MEGABYTES},
        "sizes": rows,
    }
    if tuple(row["samples"] for row in rows) == SIZES:
        RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(holds(row) for row in rows if row["samples"] in SECONDS) else 1


if __name__ == "__main__":
    sys.exit(main())
