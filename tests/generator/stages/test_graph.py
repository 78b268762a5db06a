"""Stages that draw from others, from plan to images: which pixels change, which stay, which samples are skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffugen_api import layout
from diffugen_api.contract import ShardCounts
from diffugen_api.plan import SpecError
from diffugen_generator.diffusion.denoise_paths import Img2ImgPath
from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.masks import SourceImage, fading_mask
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.failures import Damaged, Incomplete
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.model import first_index
from diffugen_generator.families.unet.components import load
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.publish import publish
from diffugen_generator.samples import image_files
from diffugen_generator.store.folder import FolderStore
from tests.generator.drawers import ImageDrawer
from tests.generator.graphs import (
    a_box,
    an_order,
    base,
    draw,
    draw_all,
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


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def counted(counts: ShardCounts) -> tuple[int, int, int]:
    return counts.total, counts.drawn, counts.skipped


@pytest.mark.parametrize("size", [(64, 64), (96, 72), (72, 104)])
def test_every_kind_of_stage_draws_images_of_the_requested_size(
    tiny_model: ModelFolder, store: FolderStore, size: tuple[int, int]
) -> None:
    order = an_order([base(tiny_model.uri), redrawn("mud", "base"), repainted("new", "base", dilation=0.1)], size=size)
    ball = a_box(20, 24, 40, 44, size)
    draw_base(order, store, {"ball": ball, "star": ball})

    assert counted(draw(order, store, "mud")) == (4, 4, 0)
    assert counted(draw(order, store, "new")) == (2, 2, 0)

    for stage in ("base", "mud", "new"):
        for sample in samples_of_stage(order, store, stage):
            assert stored_image(store, stage, sample.id).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("inpainting", [False, True], ids=["ordinary UNet", "UNet made for inpainting"])
@pytest.mark.parametrize("dilation", [0, 0.1])
def test_pixels_outside_the_mask_do_not_change(
    tiny_model: ModelFolder, inpainting_model: ModelFolder, store: FolderStore, *, inpainting: bool, dilation: float
) -> None:
    own = {"model": inpainting_model.uri} if inpainting else {}
    order = an_order([base(tiny_model.uri), repainted("new", "base", dilation=dilation, **own)])
    draw_base(order, store, {"ball": BALL, "star": None})

    draw(order, store, "new")

    reach = round(dilation * 64)
    near = a_box(20 - reach, 24 - reach, 40 + reach, 44 + reach)
    for sample in samples_of_stage(order, store, "new"):
        assert sample.source is not None
        before, after = stored_image(store, "base", sample.source.id), stored_image(store, "new", sample.id)
        assert np.array_equal(before[~near], after[~near])
        changed = (before != after).any(axis=2)
        assert changed[BALL].mean() > 0.9, "and inside nearly all is new"


@pytest.mark.parametrize("file_format", ["jpeg", "webp"])
def test_with_lossy_files_the_surroundings_change_only_by_compression(
    tiny_model: ModelFolder, store: FolderStore, file_format: str
) -> None:
    order = an_order([base(tiny_model.uri), repainted("new", "base", dilation=0)], format=file_format)
    draw_base(order, store, {"ball": BALL, "star": None})

    draw(order, store, "new")

    far = ~a_box(4, 8, 56, 60)
    for sample in samples_of_stage(order, store, "new"):
        assert sample.source is not None
        before, after = (
            stored_image(store, "base", sample.source.id, file_format),
            stored_image(store, "new", sample.id, file_format),
        )
        again = image_files.decode(image_files.encode(before, file_format))
        lost = np.abs(before.astype(int) - again)[far].mean()
        assert np.abs(before.astype(int) - after)[far].mean() <= 1.1 * lost


@pytest.mark.parametrize(("which", "moved"), [("all", (True, True)), ("largest", (True, False))])
def test_every_instance_or_the_largest_is_replaced(
    tiny_model: ModelFolder, store: FolderStore, which: str, moved: tuple[bool, bool]
) -> None:
    small, large = a_box(2, 2, 14, 14), a_box(30, 30, 60, 60)
    order = an_order([base(tiny_model.uri), repainted("new", "base", instances=which, dilation=0)])
    draw_base(order, store, {"ball": BALL, "star": None})
    ((header, rows),) = shards_of(order, store, "base")
    for row in rows:
        label(store, header, row.sample, small, large)

    draw(order, store, "new")

    sample = samples_of_stage(order, store, "new")[0]
    assert sample.source is not None
    changed = (stored_image(store, "base", sample.source.id) != stored_image(store, "new", sample.id)).any(axis=2)
    assert (bool(changed[large].any()), bool(changed[small].any())) == moved


def test_strength_sets_the_number_of_steps_and_how_close_to_the_source_they_start(tiny_model: ModelFolder) -> None:
    components = load(tiny_model, torch.device("cpu"), "euler")
    rng = np.random.default_rng(0)
    source = SourceImage(rng.integers(0, 256, (64, 64, 3), np.uint8))
    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    latents = components.encode_images([source.image])
    found = []
    for strength in (0.01, 0.3, 0.6, 1):
        components.sampler.set_steps(10, (64, 64))
        way = Img2ImgPath(components, [source], noise, steps=10, strength=strength)
        found.append((len(way.timesteps), float((way.start - latents).std())))

    assert [steps for steps, _ in found] == [1, 3, 6, 10]
    assert [distance for _, distance in found] == sorted(distance for _, distance in found)


@pytest.mark.parametrize(
    ("steps", "strength", "run"), [(5, 0.7, 4), (5, 0.5, 2), (10, 0.3, 3), (4, 0.01, 1), (7, 1, 7)]
)
def test_the_steps_that_run_are_rounded_half_to_even(steps: int, strength: float, run: int) -> None:
    """Diffusers drops the fraction; the content addresses of stored images stand for these numbers."""
    assert steps - first_index(steps, strength, order=1) == run


@pytest.mark.parametrize("scheduler", [None, "euler_a", "dpmsolver++", "heun", "lcm", "pndm", "unipc"])
def test_the_same_recipe_gives_the_same_image_in_any_batch(tiny_model: ModelFolder, scheduler: str | None) -> None:
    components = load(tiny_model, torch.device("cpu"), scheduler)
    drawer = ImageDrawer(components, TextStates(components))
    rng = np.random.default_rng(0)
    for mask in (None, fading_mask([BALL], 0.05)):
        sources = [SourceImage(rng.integers(0, 256, (64, 64, 3), np.uint8), mask) for _ in range(3)]
        orders = [DrawRequest(f"a ball on {'abc'[seed]}", seed, each) for seed, each in enumerate(sources)]
        settings = DrawingSettings(64, 64, 4, 2, strength=0.7)

        together = drawer.draw(orders, settings)
        alone = [drawer.draw([order], settings)[0] for order in orders]
        turned = drawer.draw(orders[::-1], settings, batch=4)[::-1]

        for here, *others in zip(together, alone, turned, strict=True):
            assert all(np.abs(here.astype(int) - other).max() <= 2 for other in others)


def test_a_graph_of_any_shape_is_drawn_and_published(tiny_model: ModelFolder, store: FolderStore) -> None:
    stages = [
        redrawn("last", "new", variables={"place": ["traffic"]}),
        repainted("new", "mud", replacements={"ball": ["red light"], "star": ["blue light"]}),
        redrawn("mud", "base"),
        base(tiny_model.uri),
    ]
    order = an_order(stages, labeling={"attention": {"threshold": 0.3}})
    done = draw_all(order, store)

    published = publish(order, store).published

    assert published is not None
    assert list(done) == ["base", "mud", "new", "last"]
    lines = manifest_lines(store, order.revision)
    by_id = {line["id"]: line for line in lines}
    assert {line["stage"] for line in lines} == set(done)
    for line in lines:
        if line["stage"] != "base":
            source = by_id[line["source"]]
            assert source["split"] == line["split"], "what is drawn from one another stays together"
            assert {"last": "new", "new": "mud", "mud": "base"}[line["stage"]] == source["stage"]
        assert line.get("replaced") == (line["variables"] and {"new": line.get("replaced")}.get(line["stage"]))
    assert {line["replaced"] for line in lines if line["stage"] == "new"} == {"ball", "star"}
    assert "| last | img2img from new |" in store.read(f"revisions/{order.revision}/README.md").decode()
    assert plan(order, store).plan is not None
    assert all(found.shards == 0 for found in plan(order, store).plan or [])


def test_a_replacement_is_labeled_as_its_class(tiny_model: ModelFolder, store: FolderStore) -> None:
    order = an_order([base(tiny_model.uri), repainted("new", "base"), redrawn("mud", "new")])
    draw_base(order, store, {"ball": BALL, "star": None})

    draw(order, store, "new")
    ((header, rows),) = shards_of(order, store, "new")
    seen = [AttentionMaps.loads(store.read(layout.evidence("new", header.evidence_id, row.sample.id))) for row in rows]
    for row in rows:
        label(store, header, row.sample)
    draw(order, store, "mud")
    ((next_header, next_rows),) = shards_of(order, store, "mud")
    after = [
        AttentionMaps.loads(store.read(layout.evidence("mud", next_header.evidence_id, row.sample.id)))
        for row in next_rows
    ]

    assert [row.sample.prompt for row in rows] == ["a red light on snow"] * 2
    assert [each.classes for each in (*seen, *after)] == [("ball",)] * 4


def test_a_source_without_a_label_is_skipped_with_a_reason_and_the_others_are_drawn(
    tiny_model: ModelFolder, store: FolderStore
) -> None:
    order = an_order([base(tiny_model.uri), repainted("new", "base"), redrawn("mud", "new")])
    draw_base(order, store, {"ball": BALL, "star": BALL})
    ((header, rows),) = shards_of(order, store, "base")
    bare = next(row.sample for row in rows if row.sample.variables["object"] == "ball")
    label(store, header, bare)

    assert counted(draw(order, store, "new")) == (2, 1, 1)
    assert counted(draw(order, store, "mud")) == (2, 1, 1)

    (skipped,) = (s for s in samples_of_stage(order, store, "new") if s.source and s.source.id == bare.id)
    report = json.loads(store.read(layout.shard_report(order.revision, "new", 0)))
    assert report["skipped"] == {skipped.id: "SourceWithoutLabel"}
    published = publish(order, store).published
    assert published is not None
    assert published.rejected_by_stage == {"new": 1, "mud": 1}
    reasons = {line["stage"]: line for line in manifest_lines(store, order.revision) if line["reason"]}
    assert {stage: line["reason"] for stage, line in reasons.items()} == {
        "new": "SourceWithoutLabel",
        "mud": "SourceRejected",
    }
    assert (reasons["new"]["id"], reasons["new"]["source"], reasons["new"]["image"]) == (skipped.id, bare.id, "")


def test_a_rejected_source_is_skipped_and_new_quality_rules_are_applied(
    tiny_model: ModelFolder, store: FolderStore
) -> None:
    stages = [base(tiny_model.uri), redrawn("mud", "base"), repainted("new", "base")]
    strict = an_order(stages, quality={"minInstances": 1, "minAreaFraction": 0.05})
    lenient = an_order(stages)
    draw_base(strict, store, {"ball": a_box(0, 0, 8, 8), "star": BALL})
    assert counted(draw(strict, store, "mud")) == (4, 2, 2)
    assert counted(draw(strict, store, "new")) == (2, 0, 2)

    again = {found.name: found for found in plan(strict, store).plan or []}
    assert [(found.skipped, found.shards) for found in again.values()] == [(0, 0), (2, 0), (2, 0)]

    looser = {found.name: found for found in plan(lenient, store).plan or []}
    assert [(found.draw, found.skipped) for found in looser.values()] == [(0, 0), (2, 0), (2, 0)]
    assert counted(draw(lenient, store, "mud")) == (2, 2, 0)
    assert counted(draw(lenient, store, "new")) == (2, 2, 0)

    drawn = {found.name: found for found in plan(strict, store).plan or []}
    assert [(found.draw, found.shards) for found in drawn.values()] == [(0, 0)] * 3, "what is there costs nothing"
    for header, rows in shards_of(lenient, store, "mud"):
        for row in rows:
            label(store, header, row.sample, BALL)
    publish(strict, store)
    lines = manifest_lines(store, strict.revision)
    assert {line["reason"] for line in lines if line["stage"] == "new"} == {"SourceRejected"}


def test_a_missing_source_is_an_error(tiny_model: ModelFolder, store: FolderStore) -> None:
    order = an_order([base(tiny_model.uri), redrawn("mud", "base")])
    draw_base(order, store, {"ball": BALL, "star": BALL})
    source = samples_of_stage(order, store, "base")[0]
    key = layout.image("base", source.id, "png")
    whole, recipe = store.read(key), store.read(layout.recipe("base", source.id))

    store.write(key, b"no image")
    with pytest.raises(Damaged, match=f"{key} is damaged .its SHA-256 is .*: plan again"):
        draw(order, store, "mud")
    assert not store.exists(layout.recipe("base", source.id)), "the next plan draws it again"

    store.write(layout.recipe("base", source.id), recipe)
    with pytest.raises(Incomplete, match=f"the image of sample {source.id} of stage 'base', from which another"):
        draw(order, store, "mud")
    assert not store.exists(layout.recipe("base", source.id))

    store.write(key, whole)
    store.write(layout.recipe("base", source.id), recipe)
    ((header, _),) = shards_of(order, store, "base")
    (store.root / layout.label("base", header.label_id, source.id)).unlink()
    with pytest.raises(Incomplete, match=f"stage 'base' is not finished: sample {source.id} has no labels"):
        draw(order, store, "mud")


def test_a_shard_that_was_killed_resumes_and_gives_the_same_bytes(tiny_model: ModelFolder, store: FolderStore) -> None:
    order = an_order([base(tiny_model.uri), repainted("new", "base")])
    draw_base(order, store, {"ball": BALL, "star": None})
    draw(order, store, "new")
    whole = everything_in(store.root)
    lost = [key for key in whole if key.startswith(("samples/new", "evidence/new", "labels/new"))]
    for key in lost:
        (store.root / key).unlink()

    assert counted(draw(order, store, "new")) == (2, 2, 0)

    assert everything_in(store.root) == whole


@pytest.mark.parametrize(
    ("stages", "reason", "message"),
    [
        ([redrawn("mud", "base", variables={"place": ["snow"]})], "NothingToDraw", r"spec.stages\[1\].img2img: every"),
        ([redrawn("mud", "base", variables={"hour": ["noon"]})], "UnknownVariable", r"stages\[1\].img2img.variables.h"),
        ([repainted("new", "base", template="a {hour}")], "UnknownVariable", r"spec.stages\[1\].inpaint.template: "),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tiny_model: ModelFolder, store: FolderStore, stages: list[dict[str, Any]], reason: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message) as refused:
        plan(an_order([base(tiny_model.uri), *stages]), store)

    assert refused.value.reason == reason
    assert not store.root.exists()


def test_an_inpainting_model_is_refused_for_other_stages(inpainting_model: ModelFolder, store: FolderStore) -> None:
    with pytest.raises(SpecError, match=r"spec.stages\[0\].txt2img.model: .* is made for inpainting and cannot do"):
        plan(an_order([base(inpainting_model.uri)]), store)
