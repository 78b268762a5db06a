"""Measures publishing: memory and time for 10,000, 100,000 and a million samples, and datumaro's COCO export beside it.

The bounds: at most 1 GiB of resident memory at every size, time that grows in proportion to the samples, and at least
the speed of datumaro for COCO alone of the same 10,000 records, from the same folder, images copied, masks in the same
form (RLE as lists), in the same run: the two take turns, and the medians are compared.

Both begin with records on the disk and end with annotations and images on the disk. Datumaro reads its records from
one file, unchecked, and exports them. Publishing reads a label, a recipe and an image for each sample, each from a file
of its own; it checks labels and masks, compares every image with its SHA-256, and writes also the manifest, the report
with its thumbnails, the contact sheet, the dataset card, the Croissant metadata, and the list of all files with their
SHA-256.
`speedup_over_export` compares all of this with the export alone of datumaro, whose dataset is then in memory already.
`cpu_speedup_over_peer` compares processor time in place of time on the clock: other programs change it less.

Run: python -m benchmarks.publish [--most SAMPLES]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.publish import records
from benchmarks.publish.measuring import FORMATS, order_for

from diffugen_generator.planning.plan import plan
from diffugen_generator.store.folder import FolderStore

RESULTS = Path(__file__).parents[1] / "results" / "publish.json"
SIZES = (10_000, 100_000, 1_000_000)
MEGABYTES = 1024.0
GROWTH = 1.5
"""The most processor time of a sample at the largest size, as a multiple of that at the smallest."""
PEER = "datumaro==1.13.12"
PEER_SAMPLES = 10_000
ROUNDS = 5
MEMORY = Path("/dev/shm")
SCRATCH = str(MEMORY) if MEMORY.is_dir() else None
"""Where the folders are: in memory if possible, because publishing waits until the disk has each file and the peer does
not."""
MOST_IN_MEMORY = 100_000
"""More samples have more files than fit into memory. Their time on the clock is that of the disk."""
ENVIRONMENT = Path.home() / ".cache" / "diffugen-bench" / PEER.replace("==", "-")


def measured(kind: str, samples: int, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.publish.measuring", kind, str(samples), str(folder)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def at_size(samples: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=SCRATCH if samples <= MOST_IN_MEMORY else None) as folder:
        store = FolderStore(Path(folder))
        plan(order_for("simulated", samples), store)
        shutil.rmtree(store.root / "plans" / order_for("simulated", samples).revision / records.STAGE)
        return measured("simulated", samples, store.root)


def beside_the_peer(samples: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        order = order_for("coco", samples)
        store = records.write_store(order, Path(folder) / "store")
        plan(order, store)
        lines = Path(folder) / "records.jsonl"
        with lines.open("wb") as out:
            out.writelines(records.lines_of(records.coco_records(order, store.root)))
        ours, peers = [], []
        for _ in range(ROUNDS):
            ours.append(measured("coco", samples, store.root))
            command = [peer_python(), Path(__file__).with_name("peer.py"), lines, Path(folder) / "peer"]
            peers.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            assert peers[-1]["samples"] == ours[-1]["samples"] == samples
            for made in (store.root / "revisions", Path(folder) / "peer"):
                shutil.rmtree(made)
            (store.root / "current.json").unlink()
        return {
            "samples": samples,
            "rounds": ROUNDS,
            "seconds": _median(ours, "seconds"),
            "cpu_seconds": _median(ours, "cpu_seconds"),
            "peer": PEER,
            "peer_seconds": _median(peers, "seconds"),
            "peer_cpu_seconds": _median(peers, "cpu_seconds"),
            "peer_reading_seconds": _median(peers, "reading_seconds"),
            "peer_reading_cpu_seconds": _median(peers, "reading_cpu_seconds"),
        }


def _median(found: Sequence[dict[str, float]], name: str) -> float:
    return round(median(each[name] for each in found), 2)


def peer_python() -> Path:
    """Return the Python of a separate environment for datumaro, which needs older versions of our libraries."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PEER], check=True)
    return python


def bounds_of(found: dict[str, Any]) -> dict[str, bool]:
    """Return each bound, and whether the results hold it."""
    sizes = found["sizes"]
    costs = [size["cpu_seconds"] / size["samples"] for size in sizes]
    return {
        "peak_rss_mb": all(size["peak_rss_mb"] <= MEGABYTES for size in sizes),
        **({"linear": costs[-1] <= GROWTH * costs[0]} if len(costs) > 1 else {}),
        "speedup_over_peer": found["speedup_over_peer"] >= 1,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _former_sizes() -> list[dict[str, Any]]:
    """Return the sizes of the last results, each with the time when it was measured."""
    if not RESULTS.exists():
        return []
    former = json.loads(RESULTS.read_text())
    return [{"measuredAt": former["measuredAt"], **size} for size in former["sizes"]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure publishing.")
    parser.add_argument(
        "--most", type=int, default=SIZES[-1], help="the largest number of samples; the results of larger ones stay"
    )
    most = parser.parse_args().most
    coco = beside_the_peer(PEER_SAMPLES)
    found = {
        "measuredAt": _now(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "formats": list(FORMATS),
        "sizes": [],
        "speedup_over_peer": round((coco["peer_reading_seconds"] + coco["peer_seconds"]) / coco["seconds"], 2),
        "speedup_over_export": round(coco["peer_seconds"] / coco["seconds"], 2),
        "cpu_speedup_over_peer": round(
            (coco["peer_reading_cpu_seconds"] + coco["peer_cpu_seconds"]) / coco["cpu_seconds"], 2
        ),
        "coco": coco,
    }
    for samples in (size for size in SIZES if size <= most):
        found["sizes"].append({**at_size(samples), "measuredAt": _now()})
        sys.stdout.write(f"{found['sizes'][-1]}\n")
    found["sizes"] += [size for size in _former_sizes() if size["samples"] > most]
    found["bounds"] = bounds_of(found)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    sys.exit(0 if all(found["bounds"].values()) else 1)


if __name__ == "__main__":
    main()
