"""Datasets that tests write directly: real files in a real folder, without a model.

Images and masks come from the scenes that the built-in model was trained on, so labels are exact and the published
datasets have real objects. Nothing here depends on how a worker draws.
"""

import gzip
import io
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import canonical, revision_of
from diffugen_api.v1alpha1 import AttentionLabeling, LabeledDatasetSpec
from diffugen_generator.families.unet.tensors import expected_of
from diffugen_generator.labeling.decide.from_attention import decision_of
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.planning.plan import plan
from diffugen_generator.samples import labels
from diffugen_generator.samples.labels import Instance, Label, Rle
from diffugen_generator.samples.shards import Need, ShardHeader, ShardRow, read_shard
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.protocol import BINARY, Store
from generator.training import scenes

COMPONENTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
SETTINGS: dict[str, dict[str, Any]] = {
    "unet/config.json": {
        "in_channels": 4,
        "cross_attention_dim": 32,
        "sample_size": 16,
        "block_out_channels": [8],
        "layers_per_block": 1,
        "down_block_types": ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"],
        "attention_head_dim": 2,
    },
    "vae/config.json": {"latent_channels": 4, "block_out_channels": [8]},
    "text_encoder/config.json": {
        "hidden_size": 32,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "vocab_size": 2,
        "max_position_embeddings": 20,
    },
    "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler"},
    "tokenizer/tokenizer_config.json": {"model_max_length": 20},
    "tokenizer/tokenizer.json": {"model": {"vocab": {"a</w>": 0, "ball</w>": 1}}},
}
"""What a plan reads of a model."""
WITH_WEIGHTS = ("text_encoder", "unet", "vae")


def weights_of(text: str) -> bytes:
    """Return a safetensors file that holds a text."""
    return save({"text": np.frombuffer(text.encode(), np.uint8)})


@cache
def network_of(component: str, text: str) -> bytes:
    """Return a safetensors file with all tensors that a component's settings ask for, all zeros, and a text."""
    expected = expected_of(component, SETTINGS.get(f"{component}/config.json", {})) or {}
    tensors = (
        {name: np.zeros(shape, np.float16) for name, shape in expected.items()} if component in WITH_WEIGHTS else {}
    )
    return save({**tensors, "text": np.frombuffer(text.encode(), np.uint8)})


def objects_in(maps: AttentionMaps, image: NDArray[np.uint8], settings: AttentionLabeling) -> list[Instance]:
    """Return the objects that attention maps give for an image, class by class, the largest first."""
    return decision_of(maps, image, settings).instances


def a_model(folder: Path, weights: str = "weights") -> str:
    """Write a folder that is accepted as a model until it is loaded; return its path."""
    for component in COMPONENTS:
        (folder / component).mkdir(parents=True, exist_ok=True)
        (folder / component / "model.safetensors").write_bytes(network_of(component, weights))
    for component, settings in SETTINGS.items():
        (folder / component).write_text(json.dumps(settings))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return str(folder)


def spec_data(model: str, **changes: Any) -> dict[str, Any]:
    return {
        "classes": [{"name": name} for name in scenes.CLASSES],
        "image": {"width": scenes.SIZE, "height": scenes.SIZE},
        "prompts": {
            "templates": ["a {color} {object} on {place}"],
            "variables": {"object": list(scenes.CLASSES), "color": ["red", "blue"], "place": ["snow", "sand"]},
        },
        "stages": [{"name": "base", "txt2img": {"model": model, "steps": 20, "guidanceScale": 3}}],
        **changes,
    }


def an_order(model: str, **changes: Any) -> WorkOrder:
    spec = LabeledDatasetSpec.model_validate(spec_data(model, **changes))
    return WorkOrder(namespace="vision", name="shapes", revision=revision_of(spec), spec=spec)


def planned_shards(order: WorkOrder, store: Store) -> Iterator[tuple[ShardHeader, list[ShardRow]]]:
    """The shards of the plan that the store holds."""
    summary = json.loads(store.read(layout.plan_summary(order.revision)))
    for stage in summary["stages"]:
        for index in range(stage["shards"]):
            yield read_shard(store, layout.shard(order.revision, stage["name"], index))


def run_shards(order: WorkOrder, store: Store) -> int:
    """Execute the plan without a model; return how many images were drawn."""
    drawn = 0
    for header, rows in planned_shards(order, store):
        for row in rows:
            drawn += row.do is Need.DRAW
            do_by_hand(header, row, store)
    return drawn


def do_by_hand(header: ShardHeader, row: ShardRow, store: Store) -> None:
    sample, stage = row.sample, header.stage
    scene = scenes.draw(1, np.random.default_rng(sample.seed))
    if row.do is Need.DRAW:
        store.write(layout.image(stage, sample.id, header.extension), png(scene.images[0]))
        store.write(layout.recipe(stage, sample.id), canonical({"prompt": sample.prompt, "seed": sample.seed}))
    if row.do in (Need.DRAW, Need.SEE):
        store.write(layout.evidence(stage, header.evidence_id, sample.id), b"evidence")
    store.write(
        layout.label(stage, header.label_id, sample.id),
        labels.dumps_label(Label(sample.id, tuple(instances_of(scene)))),
    )


def instances_of(scene: scenes.Scenes) -> list[Instance]:
    found = []
    for kind, mask in zip(scene.classes[0], scene.masks[0], strict=True):
        if mask.any():
            found.append(an_instance(scenes.CLASSES[kind], mask))
    return found


def an_instance(name: str, mask: np.ndarray[Any, Any], score: float = 0.9) -> Instance:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
    x, y, width, height = (float(side) for side in box)
    return Instance(name, score, (x, y, width, height), int(mask.sum()), Rle.of(mask))


def png(raster: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(raster).save(buffer, "png")
    return buffer.getvalue()


def a_finished_store(order: WorkOrder, folder: Path) -> FolderStore:
    """Return a store in which every sample of the order is drawn and labeled, and nothing is published."""
    store = FolderStore(folder)
    plan(order, store)
    run_shards(order, store)
    return store


def everything_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest_lines(store: Store, revision: str) -> list[dict[str, Any]]:
    data = gzip.decompress(store.read(f"revisions/{revision}/manifest.jsonl.gz"))
    return [json.loads(line) for line in data.splitlines()]


class DyingStore(FolderStore):
    """A store whose writer is killed at the n-th write."""

    def __init__(self, root: Path, writes: int) -> None:
        super().__init__(root)
        self.left = writes
        self.written: list[str] = []

    def write(self, key: str, data: bytes, content_type: str = BINARY) -> None:
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("the store is gone")
        super().write(key, data, content_type)
        self.written.append(key)
