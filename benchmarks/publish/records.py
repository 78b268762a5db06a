"""The samples of the benchmark: real records of images of 64 pixels, by the thousand, without a model.

The spec asks for N samples. A sample's image and objects are those of one of `SCENES` scenes, chosen by its id; its
recipe and its label are as a worker writes them, with their checksums.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from diffugen_api import layout
from diffugen_api.addresses import canonical
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion, StageRecipe, revision_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.planning.plan import stages_of
from diffugen_generator.samples import labels
from diffugen_generator.samples.documents import sealed
from diffugen_generator.samples.labels import Instance, Label, Rle
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.protocol import BINARY
from generator.training import scenes

SCENES = 256
STAGE = "base"


def order_of(samples: int, *formats: str, masks: str = "") -> WorkOrder:
    """Return the order of a dataset; `masks` is the form of COCO's masks where it is not the usual one."""
    spec = LabeledDatasetSpec.model_validate(
        {
            "classes": [{"name": name} for name in scenes.CLASSES],
            "image": {"width": scenes.SIZE, "height": scenes.SIZE},
            "prompts": {"templates": ["a red ball and a blue star on snow"], "samplesPerPrompt": samples},
            "stages": [{"name": STAGE, "txt2img": {"model": "builtin://shapes", "steps": 20}}],
            "output": {
                "formats": list(formats),
                "splits": {"train": 0.8, "val": 0.1, "test": 0.1},
                **({"coco": {"segmentation": masks}} if masks else {}),
            },
        }
    )
    return WorkOrder(namespace="default", name="bench", revision=revision_of(spec), spec=spec)


def recipe_of(order: WorkOrder) -> StageRecipe:
    [stage] = stages_of(Expansion(order.spec))
    return stage.recipe


@cache
def _scenes() -> list[tuple[bytes, str, tuple[Instance, ...]]]:
    found = []
    for number in range(SCENES):  # one by one: drawing many at once takes gigabytes
        drawn = scenes.draw(1, np.random.default_rng(number))
        buffer = io.BytesIO()
        Image.fromarray(drawn.images[0]).save(buffer, "png", compress_level=1)
        image = buffer.getvalue()
        objects = tuple(
            _instance(scenes.CLASSES[kind], mask)
            for kind, mask in zip(drawn.classes[0], drawn.masks[0], strict=True)
            if mask.any()
        )
        found.append((image, hashlib.sha256(image).hexdigest(), objects))
    return found


def _instance(name: str, mask: Any) -> Instance:
    rle = Rle.of(mask)
    x, y, width, height = (float(side) for side in coco_mask.toBbox(rle.encoded()))
    return Instance(name, 0.9, (x, y, width, height), int(mask.sum()), rle)


def prepare() -> None:
    """Draw the scenes, so that the time of it is not measured."""
    _scenes()


def _scene(sample_id: str) -> tuple[bytes, str, tuple[Instance, ...]]:
    return _scenes()[int(sample_id[:6], 16) % SCENES]


def image_of(sample_id: str) -> bytes:
    return _scene(sample_id)[0]


def recipe_file(sample_id: str) -> bytes:
    return json.dumps(sealed({"id": sample_id, "imageSha256": _scene(sample_id)[1]})).encode()


def label_file(sample_id: str) -> bytes:
    return labels.dumps_label(Label(sample_id, _scene(sample_id)[2]))


def objects_of(sample_id: str) -> tuple[Instance, ...]:
    return _scene(sample_id)[2]


def write_store(order: WorkOrder, folder: Path) -> FolderStore:
    """Write images, recipes and labels of all samples to a folder."""
    store, recipe = FolderStore(folder), recipe_of(order)
    for sample in Expansion(order.spec).samples_of(recipe):
        files = {
            layout.image(STAGE, sample.id, "png"): image_of(sample.id),
            layout.recipe(STAGE, sample.id): recipe_file(sample.id),
            layout.label(STAGE, recipe.label_id, sample.id): label_file(sample.id),
        }
        for key, data in files.items():
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)  # without waiting for the disk
    return store


class SimulatedStore(FolderStore):
    """A store whose samples are made when they are read, and whose many small published files are only listed.

    So a million samples need no three million files, and what is measured is publishing and not the file system.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._listed = (root / "listed").open("w", encoding="utf-8")
        self._lock = Lock()

    def read(self, key: str) -> bytes:
        top, *parts = key.split("/")
        if top == "samples":
            return image_of(parts[2]) if parts[3] == "image.png" else recipe_file(parts[2])
        if top == "labels":
            return label_file(parts[3].removesuffix(".json"))
        return super().read(key)

    def write(self, key: str, data: bytes, content_type: str = BINARY) -> None:
        if key.endswith(".txt"):
            self._list(key, len(data))
        else:
            super().write(key, data, content_type)

    def copy(self, source: str, target: str) -> None:
        self._list(target, len(image_of(source.split("/")[3])))

    def upload(self, key: str, path: Path, content_type: str = BINARY) -> None:
        self._list(key, path.stat().st_size)

    def _list(self, key: str, size: int) -> None:
        with self._lock:
            self._listed.write(f"{key} {size}\n")

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        yield from super().sizes(prefix)
        with self._lock:
            self._listed.flush()
        with (self.root / "listed").open(encoding="utf-8") as lines:
            for line in lines:
                key, size = line.split()
                if key.startswith(prefix):
                    yield key, int(size)


def coco_records(order: WorkOrder, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what the peer exports: id, path, size and objects of each sample."""
    for sample in Expansion(order.spec).samples_of(recipe_of(order)):
        yield {
            "id": sample.id,
            "path": str(folder / layout.image(STAGE, sample.id, "png")),
            "size": [scenes.SIZE, scenes.SIZE],
            "objects": [each.row() for each in objects_of(sample.id)],
        }


def lines_of(records: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    return (canonical(record) + b"\n" for record in records)
