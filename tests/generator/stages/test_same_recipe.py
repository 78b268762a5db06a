"""The same recipe gives the same image and labels up to rounding: in any batch, shard and order, in fp32 on a CPU."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from diffugen_api.contract import ENV_BATCH_SIZE
from diffugen_api.orders import WorkOrder
from diffugen_generator.commands.display import PlainDisplay
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.given.image_sources import FolderSource
from diffugen_generator.given.label import label, spec_of
from diffugen_generator.labeling.decide.from_detections import overlaps
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.evidence.detections import Detections
from diffugen_generator.planning.plan import plan
from diffugen_generator.samples import labels
from diffugen_generator.samples.labels import Rle
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.folder import FolderStore
from generator.training import scenes
from tests.generator.graphs import (
    a_box,
    an_order,
    base,
    draw,
    redrawn,
    repainted,
    samples_of_stage,
    shards_of,
    stored_image,
)
from tests.generator.graphs import label as by_hand

LEVELS = 2
"""Of 255; what rounding may change."""
CERTAIN = 0.2
"""Answers of a detector below this may come in another order."""


def furthest(one: np.ndarray, other: np.ndarray) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max(initial=0))


def draw_backwards(order: WorkOrder, store: FolderStore, stage: str) -> None:
    """Draw a stage in shards of three, the last samples first, one by one."""
    rows = [row for _, some in shards_of(order, store, stage) for row in some][::-1]
    (header, _), *_ = shards_of(order, store, stage)
    sessions = SessionCache(device="cpu", batch_size=1)
    for index, start in enumerate(range(0, len(rows), 3)):
        run_shard(replace(header, index=index), rows[start : start + 3], store, sessions=sessions)


def test_images_of_any_kind_of_stage_are_the_same(tiny_model: ModelFolder, tmp_path: Path) -> None:
    stages = [base(tiny_model.uri), redrawn("mud", "base"), repainted("new", "base")]
    prompts = {
        "templates": ["a {object} on {place}"],
        "variables": {"object": ["ball"], "place": ["snow"]},
        "samplesPerPrompt": 7,
    }
    order = an_order(stages, prompts=prompts)
    whole, parts = FolderStore(tmp_path / "whole"), FolderStore(tmp_path / "parts")
    for store in (whole, parts):
        plan(order, store)
    for stage in ("base", "mud", "new"):
        draw(order, whole, stage, batch=4)
        draw_backwards(order, parts, stage)
        if (
            stage == "base"
        ):  # both stores get the same mask: the next stage's images must not differ because of the mask
            for store in (whole, parts):
                ((header, rows),) = shards_of(order, store, stage)
                for row in rows:
                    by_hand(store, header, row.sample, a_box(16, 16, 48, 48))

    for stage in ("base", "mud", "new"):
        ids = [sample.id for sample in samples_of_stage(order, whole, stage)]
        assert len(set(ids)) == 7
        apart = [furthest(stored_image(whole, stage, each), stored_image(parts, stage, each)) for each in ids]
        assert max(apart) <= LEVELS, stage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images of a size that no model was trained at, and a caption for each except one."""
    drawn = scenes.draw(7, np.random.default_rng(4))
    (folder := tmp_path / "mine").mkdir()
    for number, (image, kinds, masks) in enumerate(zip(drawn.images, drawn.classes, drawn.masks, strict=True)):
        Image.fromarray(image).resize((88, 80), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
        named = [scenes.CLASSES[kind] for kind, mask in zip(kinds, masks, strict=True) if mask.any()]
        if number:
            (folder / f"{number}.txt").write_text(" and ".join(f"a {name}" for name in named))
    return folder


def looked_at(folder: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch, batch: int) -> dict[str, bytes]:
    """Label the images with all labelers; return evidence and labels."""
    monkeypatch.setenv(ENV_BATCH_SIZE, str(batch))
    spec = spec_of(classes=scenes.CLASSES, model="builtin://shapes", detector="builtin://shapes-segmenter")
    display = PlainDisplay(Console(file=io.StringIO()))
    label("mine", spec, FolderSource(folder), store, display, device="cpu", stop=Event())
    return {key: store.read(key) for part in ("evidence/", "labels/") for key in store.list(part)}


def test_labels_of_given_images_are_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = looked_at(folder, FolderStore(tmp_path / "together"), monkeypatch, batch=7)
    (folder / "0.png").rename(folder / "9.png")  # last, not first
    alone = looked_at(folder, FolderStore(tmp_path / "alone"), monkeypatch, batch=1)

    assert together.keys() == alone.keys()
    kinds = [assert_alike(together[key], alone[key]) for key in sorted(together)]
    assert {kind: kinds.count(kind) for kind in kinds} == {"attention": 7, "detections": 7, "label": 7}
    assert sum(len(objects_of(data)) for key, data in alone.items() if key.startswith("labels/")) >= 7


def assert_alike(one: bytes, other: bytes) -> str:
    """Compare two files of the same kind; return the kind."""
    if one.startswith(b"{"):
        assert_same_objects(objects_of(one), objects_of(other))
        return "label"
    try:
        first, second = AttentionMaps.loads(one), AttentionMaps.loads(other)
    except ValueError:
        found = [
            [(each.native, each.score, each.mask) for each in Detections.loads(data).found if each.score >= CERTAIN]
            for data in (one, other)
        ]
        assert_same_objects(*found)
        return "detections"
    assert (first.classes, first.background) == (second.classes, second.background)
    assert furthest(first.maps, second.maps) <= LEVELS
    return "attention"


def objects_of(data: bytes) -> list[tuple[str, float, Rle]]:
    """Return the objects of a label, both the kept and the marked ones."""
    found = labels.loads(data)
    instances = [*found.instances, *(each.instance for each in found.marked)]
    return [(each.class_name, each.score, each.segmentation) for each in instances]


def assert_same_objects(some: Sequence[tuple[str, float, Rle]], others: Sequence[tuple[str, float, Rle]]) -> None:
    assert [name for name, *_ in some] == [name for name, *_ in others]
    for (_, score, mask), (_, other_score, other_mask) in zip(some, others, strict=True):
        assert score == pytest.approx(other_score, abs=LEVELS / 255)
        assert overlaps([mask], [other_mask])[0, 0] > 0.98
