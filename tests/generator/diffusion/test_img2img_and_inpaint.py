"""Image to image and inpainting keep the size, the settings and the pixels outside the mask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diffugen_api import layout
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.planning.plan import plan
from diffugen_generator.store.folder import FolderStore
from tests.generator.graphs import (
    a_box,
    an_order,
    base,
    draw,
    draw_base,
    label,
    redrawn,
    repainted,
    samples_of_stage,
    shards_of,
    stored_image,
)

"""Where what is made of a sample lies."""
"""By key."""


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


# fault 10 of DiffuGen's catalog
def test_img2img_keeps_the_size_and_uses_strength_and_guidance(tiny_model: ModelFolder, store: FolderStore) -> None:
    size = (96, 64)
    weak, strong = redrawn("weak", "base", strength=0.2, steps=10), redrawn("strong", "base", strength=0.9, steps=10)
    free = redrawn("free", "base", strength=0.9, steps=10, guidanceScale=1)
    order = an_order([base(tiny_model.uri), weak, strong, free], size=size)
    draw_base(order, store, {"ball": a_box(0, 0, 32, 32, size), "star": a_box(0, 0, 32, 32, size)})

    for stage in ("weak", "strong", "free"):
        draw(order, store, stage)

    drawn = {stage: samples_of_stage(order, store, stage)[0] for stage in ("weak", "strong", "free")}
    shown = {stage: stored_image(store, stage, sample.id) for stage, sample in drawn.items()}
    assert {one.shape for one in shown.values()} == {(64, 96, 3)}
    assert not np.array_equal(shown["weak"], shown["strong"])
    assert not np.array_equal(shown["strong"], shown["free"])
    recipe = json.loads(store.read(layout.recipe("weak", drawn["weak"].id)))
    assert recipe["drawing"]["settings"] == {"strength": 0.2, "steps": 10, "guidanceScale": 2.0, "scheduler": None}


# fault 16 of DiffuGen's catalog
def test_inpaint_replaces_only_the_mask_of_the_requested_class(tiny_model: ModelFolder, store: FolderStore) -> None:
    small, large = a_box(4, 4, 20, 20), a_box(28, 28, 60, 60)
    prompts = {"templates": ["a {object} and a star"], "variables": {"object": ["ball"]}}
    order = an_order([base(tiny_model.uri), repainted("new", "base", dilation=0)], prompts=prompts)
    plan(order, store)
    draw(order, store, "base")
    ((header, rows),) = shards_of(order, store, "base")
    for row in rows:
        label(store, header, row.sample, small)
        of_ball = json.loads(store.read(layout.label("base", header.label_id, row.sample.id)))
        label(store, header, row.sample, large)
        of_star = json.loads(store.read(layout.label("base", header.label_id, row.sample.id)))["instances"]
        del of_ball["checksum"]
        both = {**of_ball, "instances": [*of_ball["instances"], {**of_star[0], "class": "star"}]}
        store.write(layout.label("base", header.label_id, row.sample.id), json.dumps(both).encode())

    draw(order, store, "new")

    ((new_header, new_rows),) = shards_of(order, store, "new")
    (sample,) = (row.sample for row in new_rows)
    assert sample.source is not None
    changed = (stored_image(store, "base", sample.source.id) != stored_image(store, "new", sample.id)).any(axis=2)
    assert changed[small].mean() > 0.9
    assert not changed[~small].any(), "what is not replaced is composited back, to the bit"
    assert sample.prompt == "a red light and a star"
    evidence = AttentionMaps.loads(store.read(layout.evidence("new", new_header.evidence_id, sample.id)))
    assert evidence.classes == ("ball", "star"), "a replacement is of its class, not free text"
