"""A run continues after images without labels, can be resumed, and draws the same bytes again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import SpecError
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.publish import publish
from diffugen_generator.samples.documents import CHECKSUM
from diffugen_generator.samples.recipes import IMAGE_SHA256
from diffugen_generator.stages.model_session import ENV_THREADS
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
from tests.generator.made import everything_in, manifest_lines

BALL = a_box(20, 24, 40, 44)

MADE = ("samples/", "evidence/", "labels/")
"""Where what is made of a sample lies."""

Files = dict[str, bytes]
"""By key."""


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


# fault 3 of DiffuGen's catalog
def test_an_image_without_a_label_does_not_end_the_run(tiny_model: ModelFolder, store: FolderStore) -> None:
    stages = [base(tiny_model.uri), redrawn("mud", "base"), repainted("new", "base")]
    order = an_order(stages, quality={"minInstances": 1, "minAreaFraction": 0})
    draw_base(order, store, {"ball": BALL, "star": None})
    ((header, rows),) = shards_of(order, store, "base")
    first = next(row.sample for row in rows if row.sample.variables["object"] == "ball")
    label(store, header, first)

    assert draw(order, store, "mud").skipped == 3
    assert draw(order, store, "mud").drawn == 0, "and the one that has a label is drawn already"
    assert (draw(order, store, "new").drawn, draw(order, store, "new").skipped) == (1, 1)
    publish(order, store)
    skipped = [line for line in manifest_lines(store, order.revision) if line["reason"].startswith("Source")]
    assert len(skipped) == 4, "each of them is in the manifest, with the reason"


# fault 9 of DiffuGen's catalog
def test_width_and_height_of_nonsquare_images_are_not_swapped(tiny_model: ModelFolder, store: FolderStore) -> None:
    size = (104, 72)
    left = a_box(8, 20, 32, 52, size)
    order = an_order([base(tiny_model.uri), repainted("new", "base", dilation=0)], size=size)
    draw_base(order, store, {"ball": left, "star": None})

    draw(order, store, "new")

    ((header, _),) = shards_of(order, store, "new")
    for sample in samples_of_stage(order, store, "new"):
        assert sample.source is not None
        before, after = stored_image(store, "base", sample.source.id), stored_image(store, "new", sample.id)
        changed = (before != after).any(axis=2)
        assert after.shape == (72, 104, 3)
        assert changed[left].mean() > 0.9
        assert not changed[~left].any(), "the mask lies where the label lies, not transposed"
        evidence = AttentionMaps.loads(store.read(layout.evidence("new", header.evidence_id, sample.id)))
        assert evidence.maps.shape[1:] == (18, 26)


def drawn_again(order: WorkOrder, store: FolderStore, *, batch: int) -> tuple[Files, Files, set[str]]:
    """Draw a graph, delete every other recipe, and resume; return the files before and after, and unaffected keys."""

    def go_on() -> None:
        draw_base(order, store, {"ball": BALL, "star": BALL}, batch=batch)
        for stage in ("mud", "new"):
            draw(order, store, stage, batch=batch)

    go_on()
    whole = made(store)
    gone = sorted(key for key in whole if key.endswith("recipe.json"))[::2]
    for key in gone:
        (store.root / key).unlink()
    again = {found.name: found.draw for found in plan(order, store).plan or []}
    assert again == {"base": 2, "mud": 2, "new": 1}, "what is missing is drawn, and nothing else"
    go_on()
    lost = {key.split("/")[-2] for key in gone}
    return whole, made(store), {key for key in whole if not any(sample in key for sample in lost)}


def made(store: FolderStore) -> Files:
    return {key: data for key, data in everything_in(store.root).items() if key.startswith(MADE)}


# fault 18 of DiffuGen's catalog
def test_runs_can_be_resumed_and_names_do_not_collide(tiny_model: ModelFolder, store: FolderStore) -> None:
    order = an_order([base(tiny_model.uri), redrawn("mud", "base"), repainted("new", "base")])

    whole, after, stayed = drawn_again(order, store, batch=4)

    assert after.keys() == whole.keys()
    assert {key: after[key] for key in stayed} == {key: whole[key] for key in stayed}, "what there was is as it was"
    assert stayed
    for key in whole.keys() - stayed:  # drawn in other batches than before, which changes the rounding
        assert_alike(key, after[key], whole[key])
    recipe = json.loads(after[next(key for key in after if key.startswith("samples/new") and key.endswith("json"))])
    assert {"prompt", "seed", "source", "drawing", "model", "modelDigest"} <= set(recipe), "enough to draw it again"
    assert {"negative", "settings", "image"} <= set(recipe["drawing"])


def assert_alike(key: str, one: bytes, other: bytes) -> None:
    """Assert that images or maps differ by at most one level of 255, and that recipes and outlines are equal."""
    if key.endswith(".npz"):
        first, second = AttentionMaps.loads(one), AttentionMaps.loads(other)
        assert (first.classes, first.background) == (second.classes, second.background)
        assert np.abs(first.maps.astype(int) - second.maps).max(initial=0) <= 1, key
    elif key.endswith(".png"):
        shown = [np.asarray(Image.open(io.BytesIO(data)), int) for data in (one, other)]
        assert np.abs(shown[0] - shown[1]).max() <= 1, key
    elif key.startswith("labels/"):
        found = [json.loads(data)["instances"] for data in (one, other)]
        scores = [[instance.pop("score") for instance in instances] for instances in found]
        assert found[0] == found[1], key
        assert scores[0] == pytest.approx(scores[1], abs=1 / 255)
    else:
        assert without_digests(one) == without_digests(other), key


def without_digests(recipe: bytes) -> dict[str, Any]:
    """Return a recipe without the digests of itself and of its image, in which a level of 255 may differ."""
    return {name: value for name, value in json.loads(recipe).items() if name not in {CHECKSUM, IMAGE_SHA256}}


# fault 18 of DiffuGen's catalog
def test_one_by_one_the_same_recipe_gives_the_same_bytes(
    tiny_model: ModelFolder, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_THREADS, "1")
    order = an_order([base(tiny_model.uri), redrawn("mud", "base"), repainted("new", "base")])

    whole, after, _ = drawn_again(order, store, batch=1)

    assert after == whole


# fault 10 and 16 of DiffuGen's catalog
def test_bad_settings_are_found_before_a_run_starts(tiny_model: ModelFolder, store: FolderStore) -> None:
    order = an_order(
        [base(tiny_model.uri), repainted("new", "base", replacements={"star": ["sun"]})],
        prompts={"templates": ["a {object}"], "variables": {"object": ["ball"]}},
    )

    with pytest.raises(SpecError, match=r"spec.stages\[1\].inpaint.replacements.star: no prompt of stage 'base' names"):
        plan(order, store)

    assert not store.root.exists()
