"""Draws the images for all measurements into a folder, with the project's own plan and stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion, Sample, revision_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.builtin_shapes import oracle
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.planning.plan import plan, stages_of
from diffugen_generator.samples import image_files, labels
from diffugen_generator.samples.labels import Instance
from diffugen_generator.samples.shards import read_shard
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.store.folder import FolderStore
from generator.training import scenes

MODEL = "builtin://shapes"
STAGE = "base"
BATCH = 16
"""Number of images that are drawn at once."""
PROMPTS = 2 * len(scenes.CLASSES) * len(scenes.COLORS) * len(scenes.BACKGROUNDS)
"""192: every object on every background, once alone and once with another object."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One image that shows the objects of its prompt, as checked by the color oracle."""

    sample: Sample
    image: NDArray[np.uint8]
    """[64, 64, 3] sRGB."""
    truth: Mapping[str, Mask]
    """The oracle's mask [64, 64] of each class that the prompt names."""
    colors: Mapping[str, str]
    """The color word of each of these classes."""
    evidence: AttentionMaps | None
    """The attention maps, if attention labels the images."""
    instances: tuple[Instance, ...]
    """The labels that the stage itself decided on."""


def order_of(count: int, labeling: Mapping[str, Any]) -> WorkOrder:
    """Return the order for at least `count` images, one and two objects in equal parts, labeled by `labeling`.

    The images do not depend on `labeling`. The images of a smaller order are the first images of each prompt of a
    larger order.
    """
    rng = np.random.default_rng(9)
    kinds, colors = list(scenes.CLASSES), list(scenes.COLORS)
    first = list(product(kinds, colors, scenes.BACKGROUNDS))
    second = [
        (str(rng.choice([k for k in kinds if k != kind])), str(rng.choice([c for c in colors if c != color])))
        for kind, color, _ in first
    ]
    spec = LabeledDatasetSpec.model_validate(
        {
            "classes": [{"name": name} for name in kinds],
            "image": {"width": scenes.SIZE, "height": scenes.SIZE},
            "prompts": {
                "templates": [
                    "a {colour} {object} on {place}",
                    "a {colour} {object} and a {colour2} {object2} on {place}",
                ],
                "variables": {
                    "object": [kind for kind, _, _ in first],
                    "colour": [color for _, color, _ in first],
                    "place": [place for _, _, place in first],
                    "object2": [kind for kind, _ in second],
                    "colour2": [color for _, color in second],
                },
                "combine": "zip",
                "samplesPerPrompt": -(-count // PROMPTS),
            },
            "stages": [{"name": STAGE, "txt2img": {"model": MODEL, "steps": 20, "guidanceScale": 3}}],
            "labeling": dict(labeling),
            "run": {"samplesPerShard": 5000},
        }
    )
    return WorkOrder(namespace="benchmarks", name="labels", revision=revision_of(spec), spec=spec)


def work_off(order: WorkOrder, store: FolderStore, on_progress: Callable[[int, int], None]) -> None:
    """Plan, and process everything that is missing, on the CPU; report the number of finished and of all samples."""
    outcome = plan(order, store)
    assert outcome.plan is not None
    for stage in outcome.plan:
        for index in range(stage.shards):
            header, rows = read_shard(store, layout.shard(order.revision, stage.name, index))
            run_shard(
                header,
                rows,
                store,
                device="cpu",
                batch_size=BATCH,
                on_progress=lambda counts: on_progress(counts.labelled + counts.reused, counts.total),
            )


def drawn_of(order: WorkOrder, store: FolderStore) -> Iterator[Drawn]:
    """Yield the order's images that the model drew right, each with its evidence and labels from the store."""
    (stage,) = stages_of(Expansion(order.spec))
    recipe = stage.recipe
    for sample in Expansion(order.spec).samples_of(recipe):
        image = image_files.decode(store.read(layout.image(STAGE, sample.id, recipe.extension)))
        colors = {sample.variables["object"]: sample.variables["colour"]}
        if "object2" in sample.variables:
            colors[sample.variables["object2"]] = sample.variables["colour2"]
        if not oracle.shows(image, colors.values()):
            continue
        masks = {found.color: found.mask for found in oracle.objects_of(image)}
        label = labels.loads(store.read(layout.label(STAGE, recipe.label_id, sample.id)))
        yield Drawn(
            sample=sample,
            image=image,
            truth={kind: masks[color] for kind, color in colors.items()},
            colors=colors,
            evidence=_evidence(store, recipe.evidence_id, sample.id),
            instances=label.instances,
        )


def _evidence(store: FolderStore, evidence_id: str, sample_id: str) -> AttentionMaps | None:
    return AttentionMaps.loads(store.read(layout.evidence(STAGE, evidence_id, sample_id))) if evidence_id else None


def folder_store(folder: Path) -> FolderStore:
    """Return the working folder as a store."""
    folder.mkdir(parents=True, exist_ok=True)
    return FolderStore(folder)
