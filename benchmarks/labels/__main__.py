"""Measures labels on images of the built-in model: from attention and from the detector, against the color oracle.

The images are drawn once, by the project's own plan and stage. Every labeler labels the same images. Images that do not
show the objects of their prompt, as checked by the oracle, are left out. Then the presence check is measured, and a
small segmenter that is trained on each labeler's labels. Writes benchmarks/results/labels.json.

With --only KEY, only these labelers are measured, and their figures are put into the existing file.

Run: python -m benchmarks.labels [--images N] [--train N] [--folder DIR] [--only KEY ...]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from benchmarks.labels import absence, downstream, labeldiffusion
from benchmarks.labels.drawing import Drawn, drawn_of, folder_store, order_of, work_off
from benchmarks.labels.judging import Labeled, masks_of, quality_of
from rich.console import Console
from rich.table import Table

from diffugen_generator.store.folder import FolderStore
from generator.training import scenes

RESULTS = Path(__file__).parent.parent / "results" / "labels.json"
DETECTOR = {"detector": {"type": "transformers", "model": "builtin://shapes-segmenter"}, "attention": None}
INLINE = {"attention": {"capture": "inline", "refine": False, "snap": False}}
ATTENTION: Mapping[str, Any] = {"attention": {}}


def stages_labels(drawn: Drawn) -> dict[str, Any]:
    """Return the labels that the stage itself decided on."""
    return masks_of(drawn.instances)


@dataclass(frozen=True)
class Labeler:
    """One way to label, with its key in the results."""

    key: str
    name: str
    labeling: Mapping[str, Any]
    labelled: Labeled = field(default=stages_labels)


LABELERS = (
    Labeler("attention_miou", "attention, raw", {"attention": {"snap": False}}),
    Labeler("attention_snapped_miou", "attention, snapped (default)", ATTENTION),
    Labeler(
        "attention_auto_miou", "attention, threshold auto, raw", {"attention": {"threshold": "auto", "snap": False}}
    ),
    Labeler("attention_auto_snapped_miou", "attention, threshold auto, snapped", {"attention": {"threshold": "auto"}}),
    Labeler(
        "attention_fragments_01_raw_miou",
        "attention, fragmentFraction 0.1, raw",
        {"attention": {"fragmentFraction": 0.1, "snap": False}},
    ),
    Labeler(
        "attention_fragments_02_raw_miou",
        "attention, fragmentFraction 0.2, raw",
        {"attention": {"fragmentFraction": 0.2, "snap": False}},
    ),
    Labeler(
        "attention_fragments_01_miou",
        "attention, fragmentFraction 0.1, snapped",
        {"attention": {"fragmentFraction": 0.1}},
    ),
    Labeler(
        "attention_fragments_02_miou",
        "attention, fragmentFraction 0.2, snapped",
        {"attention": {"fragmentFraction": 0.2}},
    ),
    Labeler("attention_unrefined_miou", "attention, not refined, raw", {"attention": {"refine": False, "snap": False}}),
    Labeler("attention_rescaled_miou", "attention, rescale, raw", {"attention": {"rescale": True, "snap": False}}),
    Labeler(
        "attention_agreement_miou",
        "attention, headWeights: agreement, raw",
        {"attention": {"headWeights": "agreement", "snap": False}},
    ),
    Labeler(
        "attention_goca_miou",
        "attention, both, not refined, auto, raw",
        {
            "attention": {
                "rescale": True,
                "headWeights": "agreement",
                "refine": False,
                "threshold": "auto",
                "snap": False,
            }
        },
    ),
    Labeler("inline_miou", "inline, not refined, raw (DAAM)", INLINE),
    Labeler(
        "inline_snapped_miou",
        "inline, not refined, snapped (DAAM)",
        {"attention": {"capture": "inline", "refine": False}},
    ),
    Labeler("labeldiffusion_miou", "as LabelDiffusion", INLINE, labeldiffusion.labels_of),
    Labeler("detector_miou", "detector", DETECTOR),
)
TRAINED = {"oracle": None, "attention": ATTENTION, "detector": DETECTOR}
"""The labels that the segmenter is trained on; the oracle's masks need no labeling."""

BOUNDS: Mapping[str, tuple[str, float]] = {
    "attention_miou": (">=", 0.80),
    "attention_snapped_miou": (">=", 0.88),
    "above_labeldiffusion": (">=", 0.10),
    "detector_miou": (">=", 0.92),
    "false_label_rate": ("<=", 0.05),
    "presence_auroc": (">=", 0.85),
    "downstream_ratio": (">=", 0.85),
    "downstream_ratio_detector": (">=", 0.85),
}


def measure(store: FolderStore, images: int, train: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything; return the figures."""
    figures: dict[str, Any] = {}
    drawn: Sequence[Drawn] = ()
    labelled(store, max(images, train), ATTENTION, say)
    for each in LABELERS:
        drawn = judge(store, images, each, figures, say)
    figures["pictures"] = len(drawn)
    figures["objects"] = sum(len(each.truth) for each in drawn)
    figures["above_labeldiffusion"] = round(figures["attention_miou"] - figures["labeldiffusion_miou"], 4)
    found = absence.measure(drawn[:: max(1, len(drawn) // 200)])
    say(f"presence: {found}")
    figures["absence"] = rounded(asdict(found))
    figures["false_label_rate"] = round(found.checked, 4)
    figures["false_label_rate_unnamed"] = unnamed_rate(figures["labellers"]["attention_snapped_miou"])
    figures["presence_auroc"] = round(found.auroc, 4)
    scores = {name: trained(store, train, labeling, say) for name, labeling in TRAINED.items()}
    figures["downstream"] = {"pictures": train, "scenes": downstream.SCENES, **rounded(scores)}
    figures["downstream_ratio"] = round(scores["attention"] / scores["oracle"], 4)
    figures["downstream_ratio_detector"] = round(scores["detector"] / scores["oracle"], 4)
    return figures


def judge(
    store: FolderStore, images: int, labeler: Labeler, figures: dict[str, Any], say: Callable[[str], None]
) -> list[Drawn]:
    """Measure one labeler and put its figures into `figures`; return the labeled images."""
    drawn = labelled(store, images, labeler.labeling, say)
    quality = quality_of(drawn, labeler.labelled, scenes.CLASSES)
    figures[labeler.key] = round(quality.all, 4)
    figures.setdefault("labellers", {})[labeler.key] = {"name": labeler.name, **rounded(asdict(quality))}
    say(f"{labeler.name}: {quality.all:.3f}")
    return drawn


def labelled(store: FolderStore, count: int, labeling: Mapping[str, Any], say: Callable[[str], None]) -> list[Drawn]:
    """Return the labeled images; images and labels that the folder lacks are made first."""
    order = order_of(count, labeling)
    work_off(
        order, store, lambda done, total: say(f"{json.dumps(labeling)}: {done}/{total}") if done % 200 == 0 else None
    )
    return list(drawn_of(order, store))


def trained(store: FolderStore, count: int, labeling: Mapping[str, Any] | None, say: Callable[[str], None]) -> float:
    """Return the score of a segmenter that is trained on `count` images with these labels."""
    drawn = labelled(store, count, labeling or ATTENTION, say)[:count]
    score = downstream.score(drawn, (lambda each: each.truth) if labeling is None else stages_labels)
    say(f"trained on {labeling or 'the oracle'}: {score:.3f}")
    return score


def unnamed_rate(quality: Mapping[str, Any]) -> float:
    """Return the share of classes with a label among the classes that the prompts do not name."""
    return round(quality["absent"] / max(1, quality["asked"]), 4)


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures to four digits."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


def holds(figures: Mapping[str, Any], key: str) -> bool:
    """Whether a figure is within its bound."""
    sign, bound = BOUNDS[key]
    return bool(figures[key] >= bound if sign == ">=" else figures[key] <= bound)


def show(figures: Mapping[str, Any]) -> None:
    """Print the tables."""
    table = Table(title=f"Labels of {figures['pictures']} images, {figures['objects']} objects", box=None)
    for column in ("labeller", "mIoU", "one object", "two objects"):
        table.add_column(column, justify="left" if column == "labeller" else "right")
    for each in figures["labellers"].values():
        table.add_row(each["name"], *(f"{each[part]:.3f}" for part in ("all", "one", "two")))
    bounds = Table(box=None)
    for column in ("figure", "measured", "bound", "holds"):
        bounds.add_column(column, justify="left" if column == "figure" else "right")
    for key, (sign, bound) in BOUNDS.items():
        bounds.add_row(key, f"{figures[key]:.3f}", f"{sign} {bound:g}", "yes" if holds(figures, key) else "NO")
    console = Console(width=110)
    console.print(table)
    console.print(bounds)


def machine(load: float) -> dict[str, Any]:
    """Return the machine of the measurement."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpus": os.cpu_count(),
        "cpu": names[0].partition(": ")[2] if names else platform.processor(),
        "load_before": round(load, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=576, help="to judge labels on")
    parser.add_argument("--train", type=int, default=1000, help="to train the segmenter on")
    parser.add_argument("--folder", type=Path, help="where images are kept for the next time; thrown away if absent")
    parser.add_argument("--only", nargs="+", default=(), metavar="KEY", help="the labelers to measure")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load, began = os.getloadavg()[0], time.monotonic()
    say = Console(stderr=True).log
    there = options.folder is not None and options.folder.is_dir() and any(options.folder.iterdir())
    with tempfile.TemporaryDirectory() as temporary:
        store = folder_store(options.folder or Path(temporary))
        if options.only:
            known = json.loads(RESULTS.read_text())
            for each in LABELERS:
                if each.key in options.only:
                    judge(store, options.images, each, known, say)
            RESULTS.write_text(json.dumps(known, indent=2) + "\n")
            return 0
        figures = measure(store, options.images, options.train, say)
    show(figures)
    report = {
        "measuredAt": datetime.now(UTC).isoformat(timespec="seconds"),
        **figures,
        "bounds": {
            key: {"bound": f"{sign} {bound}", "holds": holds(figures, key)} for key, (sign, bound) in BOUNDS.items()
        },
        "took_s": round(time.monotonic() - began),
        "pictures_were_there": there,
        "machine": machine(load),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("diffugen", "torch", "diffusers", "transformers")},
        },
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(holds(figures, key) for key in BOUNDS) else 1


if __name__ == "__main__":
    raise SystemExit(main())
