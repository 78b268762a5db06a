"""Measures the scale of classifier-free guidance that makes the best training data, on the built-in model.

For each guidance scale and each seed, the project's own plan and stage draw and label the same prompts with the same
seeds. Attention labels the images, and every image that the default quality settings accept is used, as in a published
dataset. A small segmenter is trained on each set. Its score is the mean IoU over the classes on scenes that the
renderer draws with exact masks: the distribution that the model was trained to imitate. Writes
benchmarks/results/guidance.json.

Run: python -m benchmarks.guidance [--images N] [--seeds N] [--trainings N] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from benchmarks.labels import downstream
from benchmarks.labels.__main__ import machine, stages_labels
from benchmarks.labels.drawing import PROMPTS, STAGE, Drawn, order_of, work_off
from benchmarks.labels.judging import quality_of
from rich.console import Console
from rich.table import Table

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion, revision_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.builtin_shapes import oracle
from diffugen_generator.planning.plan import stages_of
from diffugen_generator.quality.verdicts import verdict_on
from diffugen_generator.samples import image_files, labels
from diffugen_generator.store.folder import FolderStore
from generator.training import scenes

RESULTS: Final = Path(__file__).parent / "results" / "guidance.json"
SCALES: Final = (1.5, 2.0, 3.0, 5.0, 7.5)
EPOCHS: Final = 24
"""More than for the benchmark of labels, as the sets are smaller."""


@dataclass(frozen=True, slots=True)
class DrawnSet:
    """The images of one guidance scale and one seed."""

    accepted: Sequence[Drawn]
    """The images that the quality settings accept, with the labels of the stage."""
    faithful: Sequence[Drawn]
    """All images that show exactly the objects of their prompt, as checked by the color oracle, with its masks."""
    drawn: int
    """The number of all images."""


def order_with(count: int, guidance: float, seed: int) -> WorkOrder:
    """Return the order of `order_of` for at least `count` images with another guidance scale and seed."""
    data = order_of(count, {"attention": {}}).spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    data["seed"] = seed
    data["stages"][0]["txt2img"]["guidanceScale"] = guidance
    spec = LabeledDatasetSpec.model_validate(data)
    return WorkOrder(namespace="benchmarks", name="guidance", revision=revision_of(spec), spec=spec)


def set_of(order: WorkOrder, store: FolderStore) -> DrawnSet:
    """Return the images and labels of an order from the store."""
    [stage] = stages_of(Expansion(order.spec))
    recipe, accepted, faithful, drawn = stage.recipe, [], [], 0
    for sample in Expansion(order.spec).samples_of(recipe):
        drawn += 1
        image = image_files.decode(store.read(layout.image(STAGE, sample.id, recipe.extension)))
        label = labels.loads(store.read(layout.label(STAGE, recipe.label_id, sample.id)))
        colors = {sample.variables["object"]: sample.variables["colour"]}
        if "object2" in sample.variables:
            colors[sample.variables["object2"]] = sample.variables["colour2"]
        found = {each.color: each.mask for each in oracle.objects_of(image)}
        shown = sorted(found) == sorted(colors.values())
        truth = {kind: found[color] for kind, color in colors.items()} if shown else {}
        each = Drawn(sample, image, truth, colors, None, label.instances)
        if shown:
            faithful.append(each)
        if verdict_on(label, image.shape[:2], order.spec.quality).accepted:
            accepted.append(each)
    return DrawnSet(accepted, faithful, drawn)


def measure(
    store: FolderStore, images: int, seeds: int, trainings: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Measure every guidance scale; return its figures, the smallest scale first."""
    rows = []
    for guidance in SCALES:
        scores: list[float] = []
        faithful, accepted, quality = [], [], []
        for seed in range(seeds):
            order = order_with(images, guidance, seed)
            work_off(order, store, lambda done, total: None)
            found = set_of(order, store)
            faithful.append(len(found.faithful) / found.drawn)
            accepted.append(len(found.accepted) / found.drawn)
            quality.append(quality_of(found.faithful, stages_labels, scenes.CLASSES).all)
            scores += [
                downstream.score(found.accepted, stages_labels, seed=training, epochs=EPOCHS)
                for training in range(trainings)
            ]
            say(f"guidance {guidance:g}, seed {seed}: {scores[-trainings:]}, shown {faithful[-1]:.3f}")
        rows.append(
            {
                "guidance": guidance,
                "downstream_miou": round(float(np.mean(scores)), 4),
                "spread": round(float(np.std(scores, ddof=1)), 4) if len(scores) > 1 else 0.0,
                "scores": [round(score, 4) for score in scores],
                "shows_its_prompt": round(float(np.mean(faithful)), 4),
                "accepted": round(float(np.mean(accepted)), 4),
                "label_miou": round(float(np.mean(quality)), 4),
            }
        )
    return rows


def best_of(rows: Sequence[dict[str, Any]]) -> float:
    """Return the guidance scale with the best mean downstream score."""
    return float(max(rows, key=lambda row: row["downstream_miou"])["guidance"])


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(title="Guidance scale of the training images", box=None)
    for column in ("guidance", "downstream mIoU", "spread", "shows its prompt", "accepted", "label mIoU"):
        table.add_column(column, justify="right")
    for row in rows:
        figures = (row[key] for key in ("downstream_miou", "spread", "shows_its_prompt", "accepted", "label_miou"))
        table.add_row(f"{row['guidance']:g}", *(f"{figure:.3f}" for figure in figures))
    Console(width=110).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=PROMPTS, help="of each set")
    parser.add_argument("--seeds", type=int, default=2, help="sets for each guidance scale")
    parser.add_argument("--trainings", type=int, default=2, help="segmenters for each set")
    parser.add_argument("--folder", type=Path, help="where images are kept for the next time; thrown away if absent")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load, began = os.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        say = Console(stderr=True).log
        rows = measure(FolderStore(folder), options.images, options.seeds, options.trainings, say)
    show(rows)
    report = {
        "measuredAt": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": "builtin://shapes",
        "images": options.images,
        "seeds": options.seeds,
        "trainings": options.trainings,
        "epochs": EPOCHS,
        "scenes": downstream.SCENES,
        "best": best_of(rows),
        "scales": rows,
        "took_s": round(time.monotonic() - began),
        "machine": machine(load),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("diffugen", "torch", "diffusers", "transformers")},
        },
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
