"""DiffuGen's bugs around its three tasks, each with a test of its own: what went wrong there goes right here."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import SpecError
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.publish import publish
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


def test_bug_3_an_image_without_a_label_ended_the_whole_run(tiny_model: ModelFolder, store: FolderStore) -> None:
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


def test_bug_9_width_and_height_were_swapped_in_images_that_are_not_square(
    tiny_model: ModelFolder, store: FolderStore
) -> None:
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


def test_bug_10_img2img_dropped_the_size_and_fixed_strength_and_guidance(
    tiny_model: ModelFolder, store: FolderStore
) -> None:
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


def test_bug_16_inpaint_took_the_largest_box_of_any_class_and_changed_the_whole_frame(
    tiny_model: ModelFolder, store: FolderStore
) -> None:
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


def test_bug_17_only_txt2img_knew_the_words_that_were_taught(
    tiny_model: ModelFolder, store: FolderStore, tmp_path: Path
) -> None:
    word = tmp_path / "word.safetensors"
    save_file({"<orb>": torch.full((32,), 0.5)}, word)
    prompts = {"templates": ["a <orb> on {place}"], "variables": {"place": ["snow"]}}
    classes = [{"name": "ball", "synonyms": ["<orb>"]}]
    taught = {"embeddings": [{"uri": str(word), "token": "<orb>"}]}
    order = an_order([base(tiny_model.uri, **taught), redrawn("mud", "base")], prompts=prompts, classes=classes)
    plan(order, store)
    for stage in ("base", "mud"):
        draw(order, store, stage)

    ((header, rows),) = shards_of(order, store, "mud")
    assert [each.token for each in header.embeddings] == ["<orb>"]
    assert "<orb>" in header.drawing["embeddings"]
    evidence = AttentionMaps.loads(store.read(layout.evidence("mud", header.evidence_id, rows[0].sample.id)))
    assert (rows[0].sample.prompt, evidence.classes) == ("a <orb> on sand", ("ball",))


def test_bug_17_substrings_passed_for_equal(tiny_model: ModelFolder, store: FolderStore) -> None:
    variables = {"object": ["ball"], "hour": ["midday", "day"]}
    stages = [base(tiny_model.uri), redrawn("day", "base", variables={"hour": ["day"]})]
    prompts = {"templates": ["a {object} at {hour}"], "variables": variables}
    order = an_order(stages, prompts=prompts)
    plan(order, store)

    assert [sample.prompt for sample in samples_of_stage(order, store, "day")] == ["a ball at day"]


def drawn_again(order: WorkOrder, store: FolderStore, *, batch: int) -> tuple[Files, Files, set[str]]:
    """Draw a graph, lose every other recipe, and go on: what lay in the store before, and after, and what stayed."""

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


def test_bug_18_runs_could_not_be_resumed_and_names_collided(tiny_model: ModelFolder, store: FolderStore) -> None:
    order = an_order([base(tiny_model.uri), redrawn("mud", "base"), repainted("new", "base")])

    whole, after, stayed = drawn_again(order, store, batch=4)

    assert after.keys() == whole.keys()
    assert {key: after[key] for key in stayed} == {key: whole[key] for key in stayed}, "what there was is as it was"
    assert stayed
    for key in whole.keys() - stayed:  # drawn beside others than before, which changes the rounding
        assert_alike(key, after[key], whole[key])
    recipe = json.loads(after[next(key for key in after if key.startswith("samples/new") and key.endswith("json"))])
    assert {"prompt", "seed", "source", "drawing", "model", "modelDigest"} <= set(recipe), "enough to draw it again"
    assert {"negative", "settings", "image"} <= set(recipe["drawing"])


def assert_alike(key: str, one: bytes, other: bytes) -> None:
    """Two images, or two looks at them, are the same but for a level of 255; recipes and outlines are the same."""
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
        assert one == other, key


def test_bug_18_one_by_one_the_same_recipe_gives_the_same_bytes(
    tiny_model: ModelFolder, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_THREADS, "1")
    order = an_order([base(tiny_model.uri), redrawn("mud", "base"), repainted("new", "base")])

    whole, after, _ = drawn_again(order, store, batch=1)

    assert after == whole


def test_bug_10_and_16_bad_settings_were_found_in_the_middle_of_a_run(
    tiny_model: ModelFolder, store: FolderStore
) -> None:
    order = an_order(
        [base(tiny_model.uri), repainted("new", "base", replacements={"star": ["sun"]})],
        prompts={"templates": ["a {object}"], "variables": {"object": ["ball"]}},
    )

    with pytest.raises(SpecError, match=r"spec.stages\[1\].inpaint.replacements.star: no prompt of stage 'base' names"):
        plan(order, store)

    assert not store.root.exists()
