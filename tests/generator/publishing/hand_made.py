"""A small dataset of cases that are hard to encode. The tests publish it in every format and read it back.

Objects with holes, of several parts, several of one class, one behind another, at the border, of one pixel; images
without objects, taller or wider than square, with regions to ignore; names of several words, in other scripts and
above U+FFFF; prompts in other scripts.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Sample, revision_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.publish import publish
from diffugen_generator.quality.verdicts import Verdict
from diffugen_generator.samples.labels import Instance, Label, Region, Rle
from diffugen_generator.samples.recipes import IMAGE_SHA256
from diffugen_generator.store.folder import FolderStore
from tests.generator.made import a_model, an_instance, png, spec_data

CLASSES = ("ball", "交通標識 2", "signal_light", "far-off satellite", "𠮷 🛰")
SPLITS = {"train": 0.6, "val": 0.2, "test": 0.2}

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Drawn:
    """The content of one image: its split, its height and width, and masks by class."""

    split: str
    size: tuple[int, int]
    objects: Sequence[tuple[str, Mask]] = ()
    ignored: Sequence[tuple[str, Mask]] = ()

    @property
    def id(self) -> str:
        content = [self.split, self.size, *((name, mask.tobytes()) for name, mask in self.objects)]
        return hashlib.sha256(repr(content).encode()).hexdigest()[:32]


def disk(size: tuple[int, int], x: int, y: int, radius: int) -> Mask:
    return cv2.circle(np.zeros(size, np.uint8), (x, y), radius, 1, -1).astype(np.bool_)


def box(size: tuple[int, int], x: int, y: int, width: int, height: int) -> Mask:
    mask = np.zeros(size, np.bool_)
    mask[y : y + height, x : x + width] = True
    return mask


def _drawn() -> Iterator[Drawn]:
    square, wide, tall, large = (96, 96), (60, 130), (120, 70), (400, 480)
    ball, sign, light, satellite, astral = CLASSES
    ring = disk(square, 50, 45, 30) & ~disk(square, 55, 50, 12)
    yield Drawn("train", square, [(ball, ring)])
    yield Drawn("train", square, [(sign, disk(square, 20, 20, 14) | box(square, 60, 50, 25, 31))])
    yield Drawn("train", wide, [(light, disk(wide, 30, 30, 18)), (light, disk(wide, 90, 28, 20))])
    yield Drawn("train", tall, [(ball, box(tall, 0, 0, 70, 40)), (satellite, box(tall, 30, 20, 40, 100))])
    yield Drawn("train", large, [(satellite, disk(large, 240, 200, 180)), (ball, box(large, 3, 5, 1, 1))])
    yield Drawn("train", wide)
    band = disk(square, 48, 48, 30) & ~disk(square, 48, 48, 24)
    yield Drawn("train", square, [(astral, disk(square, 48, 48, 24))], [(astral, band)])
    holes = box(large, 40, 40, 300, 300) & ~disk(large, 120, 120, 40) & ~disk(large, 250, 250, 50)
    yield Drawn("val", large, [(light, holes | disk(large, 420, 60, 30))])
    boxes = [box(tall, 5, 5 + 30 * number, 40, 20) for number in range(4)]
    yield Drawn("val", tall, list(zip((ball, sign, light, astral), boxes, strict=True)))
    yield Drawn("test", square)
    yield Drawn("test", tall, [(sign, disk(tall, 0, 119, 50)), (sign, disk(tall, 69, 0, 30))])
    yield Drawn("test", wide, [(astral, disk(wide, 65, 30, 25))])


DRAWN = tuple(_drawn())


@dataclass(frozen=True)
class HandMade:
    """The published dataset."""

    order: WorkOrder
    store: FolderStore
    samples: Sequence[LabeledSample]

    @property
    def folder(self) -> Path:
        """The folder of the revision."""
        return self.store.root / "revisions" / self.order.revision

    def of(self, split: str) -> list[LabeledSample]:
        """The accepted samples of a split, in the order of the manifest."""
        return [each for each in self.samples if each.split == split and each.verdict.accepted]


def hand_made(folder: Path, *formats: str, before: Sequence[str] = (), **output: Any) -> HandMade:
    """Publish the dataset in `formats`, with classes `before` its own; `output` holds the options of the formats."""
    changes = {
        "classes": [{"name": name} for name in (*before, *CLASSES)],
        "prompts": {"templates": ["a {object}"], "variables": {"object": [CLASSES[0]]}},
        "output": {"formats": list(formats), "splits": SPLITS, **output},
    }
    spec = LabeledDatasetSpec.model_validate(spec_data(a_model(folder / "model"), **changes))
    order = WorkOrder(namespace="vision", name="by-hand", revision=revision_of(spec), spec=spec)
    store = FolderStore(folder / "store")
    plan(order, store)
    samples = [_sample(each) for each in DRAWN]
    for number, (drawn, sample) in enumerate(zip(DRAWN, samples, strict=True)):
        _store(store, sample, png(_pixels(drawn, number)))
    rejected = Drawn("train", (64, 64))
    samples.append(_sample(rejected, "TooFewInstances"))
    _store(store, samples[-1], png(_pixels(rejected, 99)))
    publish(order, store, samples=lambda _: iter(samples), total=len(samples))
    return HandMade(order, store, samples)


def _store(store: FolderStore, sample: LabeledSample, image: bytes) -> None:
    """Write the image, then the recipe, which commits it."""
    store.write(sample.image, image)
    recipe = {"id": sample.sample.id, IMAGE_SHA256: hashlib.sha256(image).hexdigest()}
    store.write(layout.recipe(sample.stage, sample.sample.id), json.dumps(recipe).encode())


def _sample(drawn: Drawn, reason: str = "") -> LabeledSample:
    objects = tuple(an_instance(name, mask) for name, mask in drawn.objects)
    ignored = tuple(Region(name, Rle.of(mask)) for name, mask in drawn.ignored)
    sample = Sample(drawn.id, "a ball, ein Schild, 信号機", int(drawn.id[:8], 16), 0, {"object": "ball"})
    return LabeledSample(
        sample=sample,
        stage="base",
        split=drawn.split,
        image=layout.image("base", drawn.id, "png"),
        extension="png",
        width=drawn.size[1],
        height=drawn.size[0],
        verdict=Verdict(objects, reason),
        label=Label(drawn.id, objects, ignored=ignored),
    )


def _pixels(drawn: Drawn, number: int) -> NDArray[np.uint8]:
    shade = random.Random(number)
    image = np.full((*drawn.size, 3), 30 + number, np.uint8)
    for _, mask in drawn.objects:
        image[mask] = [shade.randrange(60, 255) for _ in range(3)]
    return image


def iou(one: Mask, other: Mask) -> float:
    """The intersection over union of two masks of the same shape."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def assert_box(found: Sequence[float], instance: Instance, *, corners: bool = False) -> None:
    """Assert that a box [x, y, width, height], or [x, y, x, y] with `corners`, is the instance's box to one pixel."""
    x, y, width, height = instance.bbox
    assert np.abs(np.array(found) - ([x, y, x + width, y + height] if corners else instance.bbox)).max() <= 1
