"""Measure `builtin://shapes-segmenter` on generated images against the color oracle, and on drawn ones.

    python -m generator.training.measure_segmenter --images 200 --json measured.json --sheet samples.png

Images come from `builtin://shapes`, prompts from scenes drawn at random. Images without the requested objects, as
checked by the oracle, are left out. An object that is not found counts as an overlap of 0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from generator.training.measure_shapes import drawn_prompts, overlap
from generator.training.right_images import right_images
from numpy.typing import NDArray

from diffugen_api.v1alpha1 import DetectorLabeling, ObjectClass
from diffugen_generator.labeling.decide.from_detections import choose
from diffugen_generator.labeling.detectors.opening import open_detector
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.side_models import detectors_of
from generator.training import scenes

Masks = dict[str, NDArray[np.bool_]]
TINTS = {"ball": (255, 60, 120), "square": (0, 190, 255), "triangle": (255, 190, 0), "star": (110, 255, 0)}


def generated(count: int, objects: int, seed: int) -> tuple[NDArray[np.uint8], list[Masks]]:
    """Right images [n, 64, 64, 3] of `count` prompts, and the oracle's mask of each class in them."""
    right = [each for some in right_images(drawn_prompts(count, objects, seed), seed) for each in some]
    return np.stack([each.image for each in right]), [dict(each.objects) for each in right]


def measure(images: NDArray[np.uint8], there: list[Masks]) -> tuple[dict[str, Any], list[Masks]]:
    """Return the figures and the masks that were found."""
    settings = DetectorLabeling(type="transformers", model="builtin://shapes-segmenter", confidence=0.5)
    classes = [ObjectClass(name=name) for name in scenes.CLASSES]
    detector = open_detector(settings, detectors_of(settings), classes, torch.device("cpu"))
    found: list[Masks] = []
    for start in range(0, len(images), 16):
        for seen in detector.look([LabelInput(image, "", 0) for image in images[start : start + 16]]):
            instances = choose(seen, settings, classes, "")
            found.append({each.class_name: each.segmentation.mask() for each in reversed(instances)})  # the best last
    overlaps = [
        overlap(masks[name], mask) if name in masks else 0.0
        for masks, objects in zip(found, there, strict=True)
        for name, mask in objects.items()
    ]
    absent = [name in masks for masks, objects in zip(found, there, strict=True) for name in set(TINTS) - set(objects)]
    figures = {
        "pictures": len(images),
        "objects": len(overlaps),
        "miou": float(np.mean(overlaps)),
        "miou_lowest_tenth": float(np.percentile(overlaps, 10)),
        "missed": float(np.mean([value < 0.5 for value in overlaps])),
        "false_label_rate": float(np.mean(absent)),
    }
    return figures, found


def overlaid(image: NDArray[np.uint8], masks: Masks, scale: int = 3) -> NDArray[np.uint8]:
    """`image` enlarged, with the outline of each mask in its class's tint."""
    size = (image.shape[1] * scale, image.shape[0] * scale)
    large = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    for name, mask in masks.items():
        grown = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        cv2.drawContours(large, cv2.findContours(grown, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0], -1, TINTS[name], 2)
    return np.asarray(large)


def main() -> None:
    """Measure images of one object, of two, and drawn ones; print a line each."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=200, help="prompts for each number of objects")
    arguments.add_argument("--seed", type=int, default=2000)
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--sheet", type=Path)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    table, tiles = {}, []
    for objects in (1, 2):
        images, there = generated(options.images, objects, options.seed)
        table[f"generated_{objects}"], found = measure(images, there)
        tiles += [overlaid(image, masks) for image, masks in zip(images[:16], found, strict=False)]
    drawn = scenes.draw(options.images, np.random.default_rng(options.seed))
    exact = [
        {scenes.CLASSES[k]: mask for k, mask in zip(kinds, masks, strict=True) if k != scenes.NOTHING}
        for kinds, masks in zip(drawn.classes, drawn.masks, strict=True)
    ]
    table["drawn"], _ = measure(drawn.images, exact)
    for name, figures in table.items():
        print(name, ", ".join(f"{key} {value:.4g}" for key, value in figures.items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, **table}, indent=2) + "\n")
    if options.sheet:
        rows = [np.concatenate(tiles[start : start + 8], axis=1) for start in range(0, len(tiles) // 8 * 8, 8)]
        cv2.imwrite(str(options.sheet), np.concatenate(rows)[..., ::-1])


if __name__ == "__main__":
    main()
