"""Measures what a calibration is worth: labels with and without it, against the color oracle.

For each seed, one image of each class with one object is drawn, and the oracle's masks annotate it. The labels of other
images are judged, by the measure of `benchmarks.labels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.labels.drawing import Drawn, drawn_of, order_of, work_off
from benchmarks.labels.judging import masks_of, quality_of
from PIL import Image

from diffugen_generator.store.folder import FolderStore
from generator.training import scenes

SEEDS: Final = (0, 1, 2)
LABELERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "inline": {"capture": "inline", "refine": False, "snap": False},
    "unrefined": {"refine": False, "snap": False},
    "snapped": {},
}
"""Settings of `labeling.attention`: DAAM's maps, raw maps of one pass, and the default."""
WITH_TOKEN: Final = ("unrefined", "snapped")
"""The labelers that are also calibrated with `backgroundToken`."""


def annotate(store: FolderStore, images: int, folder: Path, seed: int) -> None:
    """Write one annotated image for each class that is none of the first `images` ones: with caption and mask."""
    judged = {each.sample.id for each in drawn_of(order_of(images, {"attention": {}}), store)}
    rng = np.random.default_rng(seed)
    others = drawn_of(order_of(2 * images, {"attention": {}}), store)
    lone = [each for each in others if len(each.truth) == 1 and each.sample.id not in judged]
    (folder / "images").mkdir(parents=True)
    for kind in scenes.CLASSES:
        of_kind = [each for each in lone if kind in each.truth]
        chosen = of_kind[int(rng.integers(len(of_kind)))]
        (folder / "masks" / kind).mkdir(parents=True)
        Image.fromarray(chosen.image).save(folder / "images" / f"{kind}.png")
        (folder / "images" / f"{kind}.txt").write_text(chosen.sample.prompt)
        Image.fromarray(chosen.truth[kind]).convert("L").save(folder / "masks" / kind / f"{kind}.png")


def measure(folder: Path, images: int) -> dict[str, Any]:
    """Measure each labeler without a calibration and with one for each seed; the images are drawn into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    store = FolderStore(folder)
    draw(store, 2 * images)
    figures: dict[str, Any] = {}
    for seed in SEEDS:
        if not (folder / f"annotated-{seed}").exists():
            annotate(store, images, folder / f"annotated-{seed}", seed)
    for name, attention in LABELERS.items():
        before = judge(store, images, attention)
        _say(f"{name}: {before:.4f}")
        after = []
        for seed in SEEDS:
            after.append(judge(store, images, calibrated(folder, seed, attention)))
            _say(f"{name}, calibrated with images {seed}: {after[-1]:.4f}")
        figures[name] = {"before": before, "after": after}
        if name in WITH_TOKEN:
            figures[name]["with_token"] = []
            for seed in SEEDS:
                figures[name]["with_token"].append(
                    judge(store, images, calibrated(folder, seed, attention, token=True))
                )
                _say(f"{name}, calibrated with images {seed} and a token: {figures[name]['with_token'][-1]:.4f}")
    gains = {name: round(float(np.mean(each["after"])) - each["before"], 4) for name, each in figures.items()}
    with_token = {name: float(np.mean(figures[name]["with_token"])) - figures[name]["before"] for name in WITH_TOKEN}
    return {
        "calibration_gain_token_unrefined_miou": round(with_token["unrefined"], 4),
        "calibration_gain_token_snapped_miou": round(with_token["snapped"], 4),
        "calibration_gain_miou": gains["inline"],
        "calibration_gain_unrefined_miou": gains["unrefined"],
        "calibration_gain_snapped_miou": gains["snapped"],
        "calibration": {"images": images, **figures},
    }


def calibrated(folder: Path, seed: int, attention: Mapping[str, Any], *, token: bool = False) -> dict[str, Any]:
    """Return the settings `attention` with a calibration on the images of `seed`; `token` is `backgroundToken`."""
    files = folder / f"annotated-{seed}"
    places: dict[str, Any] = {"images": str(files / "images"), "masks": str(files / "masks")}
    return {**attention, "calibration": {**places, **({"backgroundToken": True} if token else {})}}


def draw(store: FolderStore, count: int) -> None:
    """Draw the images that the folder lacks."""
    work_off(order_of(count, {"attention": {}}), store, lambda _done, _total: None)


def judge(store: FolderStore, images: int, attention: Mapping[str, Any]) -> float:
    """Return the mean intersection over union of labels with these settings."""
    order = order_of(images, {"attention": dict(attention)})
    work_off(order, store, lambda _done, _total: None)
    drawn: Sequence[Drawn] = list(drawn_of(order, store))
    return round(quality_of(drawn, lambda each: masks_of(each.instances), scenes.CLASSES).all, 4)


def _say(text: str) -> None:
    print(text, flush=True)
