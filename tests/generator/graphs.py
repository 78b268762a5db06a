"""Datasets for tests with stages that draw from one another: planned and drawn with a small model."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffugen_api import layout
from diffugen_api.contract import ShardCounts
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Sample, revision_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec, in_graph_order
from diffugen_generator.planning.plan import plan
from diffugen_generator.samples import labels
from diffugen_generator.samples.labels import Instance, Label
from diffugen_generator.samples.shards import ShardHeader, ShardRow, read_shard
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.protocol import Store
from tests.generator.made import an_instance

SIZE = (64, 64)


def base(model: str, **task: Any) -> dict[str, Any]:
    return {"name": "base", "txt2img": {"model": model, "steps": 2, "guidanceScale": 2, **task}}


def redrawn(name: str, source: str, **task: Any) -> dict[str, Any]:
    settings = {"steps": 3, "guidanceScale": 2, "variables": {"place": ["sand"]}}
    return {"name": name, "img2img": {"from": source, **settings, **task}}


def repainted(name: str, source: str, **task: Any) -> dict[str, Any]:
    settings = {"steps": 3, "guidanceScale": 2, "replacements": {"ball": ["red light"]}}
    return {"name": name, "inpaint": {"from": source, **settings, **task}}


def an_order(stages: Sequence[dict[str, Any]], *, size: tuple[int, int] = SIZE, **changes: Any) -> WorkOrder:
    """Images of a ball and of a star of `size` (width, height) in pixels; the quality rules accept every image."""
    data = {
        "classes": [{"name": "ball"}, {"name": "star"}],
        "image": {"width": size[0], "height": size[1], "format": changes.pop("format", "png")},
        "prompts": {
            "templates": ["a {object} on {place}"],
            "variables": {"object": ["ball", "star"], "place": ["snow"]},
            "samplesPerPrompt": 2,
        },
        "stages": stages,
        "quality": {"minInstances": 0, "minAreaFraction": 0},
        **changes,
    }
    spec = LabeledDatasetSpec.model_validate(data)
    return WorkOrder(namespace="vision", name="graph", revision=revision_of(spec), spec=spec)


def shards_of(order: WorkOrder, store: Store, stage: str) -> list[tuple[ShardHeader, list[ShardRow]]]:
    summary = json.loads(store.read(layout.plan_summary(order.revision)))
    (found,) = (each for each in summary["stages"] if each["name"] == stage)
    return [read_shard(store, layout.shard(order.revision, stage, index)) for index in range(found["shards"])]


def samples_of_stage(order: WorkOrder, store: Store, stage: str) -> list[Sample]:
    return [row.sample for _, rows in shards_of(order, store, stage) for row in rows]


def draw(order: WorkOrder, store: Store, stage: str, *, batch: int = 4) -> ShardCounts:
    """Draw the planned shards of one stage; return the sum of their counts."""
    total = ShardCounts()
    sessions = SessionCache(device="cpu", batch_size=batch)
    for header, rows in shards_of(order, store, stage):
        total += run_shard(header, rows, store, sessions=sessions)
    return total


def draw_all(order: WorkOrder, store: Store, *, batch: int = 4) -> dict[str, ShardCounts]:
    """Plan, and draw every stage in the order of the graph."""
    plan(order, store)
    return {stage.name: draw(order, store, stage.name, batch=batch) for stage in in_graph_order(order.spec.stages)}


def draw_base(order: WorkOrder, store: Store, masks: dict[str, NDArray[np.bool_] | None], *, batch: int = 4) -> None:
    """Plan, draw `base`, and write the labels of its samples: their prompt's object, or none where that is None."""
    plan(order, store)
    draw(order, store, "base", batch=batch)
    ((header, rows),) = shards_of(order, store, "base")
    for row in rows:
        label(store, header, row.sample, masks[row.sample.variables["object"]])


def label(store: Store, header: ShardHeader, sample: Sample, *masks: NDArray[np.bool_] | None) -> None:
    """Write the label of a sample: each mask is an object of its prompt's class."""
    found: list[Instance] = [an_instance(sample.variables["object"], mask) for mask in masks if mask is not None]
    store.write(
        layout.label(header.stage, header.label_id, sample.id), labels.dumps_label(Label(sample.id, tuple(found)))
    )


def stored_image(store: Store, stage: str, sample_id: str, extension: str = "png") -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(store.read(layout.image(stage, sample_id, extension)))) as image:
        return np.asarray(image.convert("RGB"))


def a_box(left: int, top: int, right: int, bottom: int, size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    mask = np.zeros((size[1], size[0]), np.bool_)
    mask[top:bottom, left:right] = True
    return mask
