"""One shard, from its rows to its report: drawn, measured, labeled, resumed, stopped, relabeled without torch."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from diffugen_api import layout
from diffugen_api.contract import ShardCounts
from diffugen_api.plan import Expansion, SpecError, stage_recipe
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.failures import Incomplete, Interrupted
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.samples import image_files, labels
from diffugen_generator.samples.shards import Need, ShardHeader, ShardRow, encode_shard
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.store.folder import FolderStore
from tests.generator.made import DyingStore


def spec_of(model: ModelFolder, **changes: object) -> LabeledDatasetSpec:
    """Six images of 64 x 64."""
    base: dict[str, object] = {
        "classes": [{"name": "ball"}, {"name": "star"}],
        "image": {"width": 64, "height": 64},
        "prompts": {
            "templates": ["a {colour} {object} on snow"],
            "variables": {"object": ["ball", "star"], "colour": ["red", "blue", "light"]},
        },
        "stages": [{"name": "base", "txt2img": {"model": model.uri, "steps": 2, "guidanceScale": 2}}],
    }
    return LabeledDatasetSpec.model_validate(base | changes)


def shard_of(spec: LabeledDatasetSpec, model: ModelFolder, do: Need = Need.DRAW) -> tuple[ShardHeader, list[ShardRow]]:
    recipe = stage_recipe(spec, spec.stages[0], model.digest)
    header = ShardHeader(
        stage="base",
        kind="txt2img",
        revision="0123456789",
        index=0,
        model=model.uri,
        model_digest=model.digest,
        drawing=recipe.drawing,
        evidence_id=recipe.evidence_id,
        label_id=recipe.label_id,
        attention=spec.labeling.attention,
        classes=tuple(spec.classes),
    )
    return header, [ShardRow(sample, do) for sample in Expansion(spec).samples_of(recipe)]


def contents(store: FolderStore) -> dict[str, bytes]:
    return {key: store.read(key) for key in store.list("")}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture(scope="module")
def drawn(tiny_model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    """A store with one complete shard; don't write to it."""
    store = FolderStore(tmp_path_factory.mktemp("drawn"))
    run_shard(*shard_of(spec_of(tiny_model), tiny_model), store, batch_size=4, device="cpu")
    return store


@pytest.fixture
def copied(drawn: FolderStore, store: FolderStore) -> FolderStore:
    for key, data in contents(drawn).items():
        store.write(key, data)
    return store


def test_a_shard_writes_images_recipes_evidence_labels_and_a_report(
    tiny_model: ModelFolder, drawn: FolderStore
) -> None:
    header, rows = shard_of(spec_of(tiny_model), tiny_model)

    assert len(list(drawn.list(""))) == 4 * 6 + 1
    report = json.loads(drawn.read(layout.shard_report("0123456789", "base", 0)))
    assert report["counts"] == {"total": 6, "drawn": 6, "seen": 6, "labelled": 6, "reused": 0, "skipped": 0}
    for row in rows:
        sample = row.sample
        file = drawn.read(layout.image("base", sample.id, "png"))
        assert image_files.decode(file).shape == (64, 64, 3)
        assert report["images"][sample.id] == hashlib.sha256(file).hexdigest()
        recipe = json.loads(drawn.read(layout.recipe("base", sample.id)))
        assert recipe["drawing"] == header.drawing
        assert (recipe["dtype"], recipe["device"]) == ("float32", "cpu")
        assert recipe["versions"] == {name: version(name) for name in ("torch", "diffusers", "diffugen")}
        assert (recipe["prompt"], recipe["seed"], recipe["modelDigest"]) == (
            sample.prompt,
            sample.seed,
            tiny_model.digest,
        )
        label = labels.loads(drawn.read(layout.label("base", header.label_id, sample.id)))
        assert label.id == sample.id
        # The other class is not in the prompt, so it cannot be in the label.
        assert {i.class_name for i in label.instances} <= {sample.variables["object"]}


def test_the_same_shard_writes_the_same_bytes(tiny_model: ModelFolder, drawn: FolderStore, store: FolderStore) -> None:
    run_shard(*shard_of(spec_of(tiny_model), tiny_model), store, batch_size=4, device="cpu")

    assert contents(store) == contents(drawn)


def test_the_order_of_the_classes_does_not_matter(
    tiny_model: ModelFolder, drawn: FolderStore, store: FolderStore
) -> None:
    spec = spec_of(tiny_model, classes=[{"name": "star"}, {"name": "ball"}])

    run_shard(*shard_of(spec, tiny_model), store, batch_size=4, device="cpu")

    assert contents(store) == contents(drawn)


def test_progress_is_reported_after_each_sample(tiny_model: ModelFolder, store: FolderStore) -> None:
    told: list[ShardCounts] = []

    counts = run_shard(
        *shard_of(spec_of(tiny_model), tiny_model), store, on_progress=told.append, batch_size=4, device="cpu"
    )

    assert told[-1] == counts
    assert [each.labelled for each in told] == sorted(each.labelled for each in told)
    assert {each.labelled for each in told} == set(range(7))


def test_a_complete_shard_loads_no_model(tiny_model: ModelFolder, copied: FolderStore) -> None:
    header, rows = shard_of(spec_of(tiny_model), tiny_model)
    lost = ShardHeader(**{name: getattr(header, name) for name in header.__slots__} | {"model": "/nowhere"})
    before = contents(copied)

    counts = run_shard(lost, rows, copied)

    assert counts == ShardCounts(total=6, reused=6)
    report = json.loads(copied.read(layout.shard_report("0123456789", "base", 0)))
    assert report["images"] == json.loads(before[layout.shard_report("0123456789", "base", 0)])["images"]


@pytest.mark.parametrize("writes", [0, 1, 3, 9, 24])
def test_after_a_kill_at_any_write_the_next_try_completes_the_store(
    tiny_model: ModelFolder, drawn: FolderStore, tmp_path: Path, writes: int
) -> None:
    shard = shard_of(spec_of(tiny_model), tiny_model)
    dying = DyingStore(tmp_path / "store", writes)
    with pytest.raises(ConnectionError):
        run_shard(*shard, dying, batch_size=4, device="cpu")
    committed = sum(key.endswith("recipe.json") for key in dying.written)

    counts = run_shard(*shard, FolderStore(tmp_path / "store"), batch_size=4, device="cpu")

    assert counts.drawn == 6 - committed
    left = FolderStore(tmp_path / "store")
    assert list(left.list("")) == list(drawn.list(""))
    report = json.loads(left.read(layout.shard_report("0123456789", "base", 0)))
    for row in shard[1]:
        file = left.read(layout.image("base", row.sample.id, "png"))
        assert report["images"][row.sample.id] == hashlib.sha256(file).hexdigest()
        # The batches differ from those of an uninterrupted run, so the images may differ by rounding only.
        whole = image_files.decode(drawn.read(layout.image("base", row.sample.id, "png")))
        assert np.abs(image_files.decode(file).astype(int) - whole).max() <= 2


def test_image_and_evidence_are_written_before_the_recipe_and_the_label_is_last(
    tiny_model: ModelFolder, tmp_path: Path
) -> None:
    recording = DyingStore(tmp_path / "store", 1000)
    header, rows = shard_of(spec_of(tiny_model), tiny_model)

    run_shard(header, rows, recording, batch_size=4, device="cpu")

    for row in rows:
        mine = [key for key in recording.written if row.sample.id in key]
        assert [Path(key).suffix for key in mine] == [".png", ".npz", ".json", ".json"]


def test_stopping_finishes_the_batch_and_the_next_try_continues(tiny_model: ModelFolder, store: FolderStore) -> None:
    stop = Event()
    shard = shard_of(spec_of(tiny_model), tiny_model)

    with pytest.raises(Interrupted, match="of 6 samples done"):
        run_shard(*shard, store, on_progress=lambda c: stop.set() if c.drawn else None, stop=stop, batch_size=2)

    labels = list(store.list("labels/"))
    assert 2 <= len(labels) < 6
    assert len(labels) % 2 == 0
    counts = run_shard(*shard, store, batch_size=2)
    assert (counts.reused, counts.drawn) == (len(labels), 6 - len(labels))


def test_a_new_threshold_changes_labels_without_running_a_model(tiny_model: ModelFolder, copied: FolderStore) -> None:
    spec = spec_of(tiny_model, labeling={"attention": {"threshold": 0.6}})

    counts = run_shard(*shard_of(spec, tiny_model, Need.LABEL), copied)

    assert counts == ShardCounts(total=6, labelled=6)


def test_labeling_stored_evidence_never_imports_torch(tiny_model: ModelFolder, copied: FolderStore) -> None:
    spec = spec_of(tiny_model, labeling={"attention": {"threshold": 0.6}})
    header, rows = shard_of(spec, tiny_model, Need.LABEL)
    copied.write("shard", encode_shard(header, (row.to_line() for row in rows)))
    code = (
        "import sys; from pathlib import Path; from diffugen_generator.samples.shards import read_shard;"
        "from diffugen_generator.stages.run_shard import run_shard;"
        "from diffugen_generator.store.folder import FolderStore;"
        f"store = FolderStore(Path({str(copied.root)!r})); counts = run_shard(*read_shard(store, 'shard'), store);"
        "assert counts.labelled == 6; sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_new_synonym_makes_new_evidence_without_drawing(tiny_model: ModelFolder, copied: FolderStore) -> None:
    spec = spec_of(tiny_model, classes=[{"name": "ball"}, {"name": "star", "synonyms": ["snow"]}])

    counts = run_shard(*shard_of(spec, tiny_model, Need.SEE), copied, batch_size=4, device="cpu")

    assert counts == ShardCounts(total=6, seen=6, labelled=6)


def only_words(spec: LabeledDatasetSpec, store: FolderStore, model: ModelFolder) -> dict[str, bytes]:
    """Delete evidence and labels, make them again from the stored images, and return the store."""
    for key in [*store.list("evidence/"), *store.list("labels/")]:
        (store.root / key).unlink()
    run_shard(*shard_of(spec, model, Need.SEE), store, batch_size=4, device="cpu")
    return contents(store)


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_a_stored_image_gives_the_same_evidence_each_time(
    tiny_model: ModelFolder, store: FolderStore, file_format: str
) -> None:
    spec = spec_of(tiny_model, image={"width": 64, "height": 64, "format": file_format})
    run_shard(*shard_of(spec, tiny_model), store, batch_size=4, device="cpu")

    first = only_words(spec, store, tiny_model)

    assert only_words(spec, store, tiny_model) == first


def test_a_stored_image_is_labeled_as_it_was_when_drawn(shapes_model: ModelFolder, store: FolderStore) -> None:
    drawing = {"name": "base", "txt2img": {"model": shapes_model.uri, "steps": 12, "guidanceScale": 3}}
    prompts = {
        "templates": ["a red {object} on snow"],
        "variables": {"object": ["ball", "star"]},
        "samplesPerPrompt": 3,
    }
    spec = spec_of(shapes_model, stages=[drawing], prompts=prompts)
    header, rows = shard_of(spec, shapes_model)
    run_shard(header, rows, store, batch_size=4, device="cpu")
    keys = [layout.label("base", header.label_id, row.sample.id) for row in rows]
    fresh = [labels.loads(store.read(key)).instances for key in keys]

    only_words(spec, store, shapes_model)

    for key, before in zip(keys, fresh, strict=True):
        (one,), (other,) = before, labels.loads(store.read(key)).instances
        mask, again = one.segmentation.mask(), other.segmentation.mask()
        assert one.class_name == other.class_name
        assert (mask & again).sum() / (mask | again).sum() > 0.93


def inline(model: ModelFolder, **changes: object) -> LabeledDatasetSpec:
    return spec_of(model, labeling={"attention": {"capture": "inline", **changes}})


def test_images_are_the_same_with_and_without_inline_attention(
    tiny_model: ModelFolder, drawn: FolderStore, store: FolderStore
) -> None:
    header, rows = shard_of(inline(tiny_model), tiny_model)

    counts = run_shard(header, rows, store, batch_size=4, device="cpu")

    assert (counts.drawn, counts.seen, counts.labelled) == (6, 6, 6)
    posthoc, _ = shard_of(spec_of(tiny_model), tiny_model)
    assert header.evidence_id != posthoc.evidence_id
    for row in rows:
        key = layout.image("base", row.sample.id, "png")
        watched, unwatched = (image_files.decode(each.read(key)).astype(int) for each in (store, drawn))
        assert abs(watched - unwatched).max() <= 2  # rounding: with inline attention, batches have another size
        evidence = AttentionMaps.loads(store.read(layout.evidence("base", header.evidence_id, row.sample.id)))
        assert evidence.classes == (row.sample.variables["object"],)


def test_inline_evidence_of_a_stored_image_comes_from_drawing_it_again(
    tiny_model: ModelFolder, copied: FolderStore, store: FolderStore, tmp_path: Path
) -> None:
    header, rows = shard_of(inline(tiny_model), tiny_model, Need.SEE)
    before = contents(copied)

    counts = run_shard(header, rows, copied, batch_size=4, device="cpu")

    assert counts == ShardCounts(total=6, seen=6, labelled=6)
    assert {key: data for key, data in contents(copied).items() if key in before and "shards/" not in key} == {
        key: data for key, data in before.items() if "shards/" not in key
    }
    fresh = FolderStore(tmp_path / "fresh")
    run_shard(*shard_of(inline(tiny_model), tiny_model), fresh, batch_size=4, device="cpu")
    for row in rows:
        key = layout.evidence("base", header.evidence_id, row.sample.id)
        assert copied.read(key) == fresh.read(key)


def test_a_model_that_differs_from_the_plans_is_refused(tiny_model: ModelFolder, store: FolderStore) -> None:
    other = ModelFolder(tiny_model.uri, tiny_model.path, "0" * 64)

    with pytest.raises(SpecError, match=r"has the digest .* here, and had 000000000000 in the plan") as caught:
        run_shard(*shard_of(spec_of(tiny_model), other), store)

    assert caught.value.reason == "ModelChanged"
    assert list(store.list("")) == []


def test_prompts_longer_than_a_window_are_drawn_and_labeled(tiny_model: ModelFolder, store: FolderStore) -> None:
    templates = ["a red light and " * 6 + "a ball", "a ball"]
    spec = spec_of(tiny_model, prompts={"templates": templates, "negative": "a star " * 12})

    counts = run_shard(*shard_of(spec, tiny_model), store, device="cpu")

    assert (counts.drawn, counts.labelled) == (2, 2)


def test_prompt_weights_are_not_literal_text(tiny_model: ModelFolder, store: FolderStore) -> None:
    prompts = {"templates": ["a red ball", "a red (ball:1.4)"], "negative": "[snow]"}
    header, rows = shard_of(spec_of(tiny_model, prompts=prompts), tiny_model)

    run_shard(header, rows, store, device="cpu")

    recipes = [json.loads(store.read(layout.recipe("base", row.sample.id))) for row in rows]
    assert [recipe.get("weights") for recipe in recipes] == [None, [["a red ", 1.0], ["ball", 1.4]]]
    assert recipes[0]["drawing"]["negativeWeights"] == [["snow", 0.909091]]
    seen = [store.read(layout.evidence("base", header.evidence_id, row.sample.id)) for row in rows]
    assert [AttentionMaps.loads(each).classes for each in seen] == [("ball",)] * 2


@pytest.mark.parametrize("file", [b"no image", image_files.encode(np.zeros((8, 8, 3), np.uint8), "png")])
def test_a_damaged_image_is_named_and_drawn_again(
    file: bytes, tiny_model: ModelFolder, copied: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    spec = spec_of(tiny_model, labeling={"attention": {"threshold": 0.6}})
    header, rows = shard_of(spec, tiny_model, Need.LABEL)
    sample = rows[0].sample
    image, recipe = layout.image("base", sample.id, "png"), layout.recipe("base", sample.id)
    before = copied.read(image)
    copied.write(image, file)

    counts = run_shard(header, rows, copied, device="cpu")

    assert f"{image} is damaged (its SHA-256 is" in caplog.text
    assert (counts.drawn, counts.labelled) == (1, len(rows))
    pixels = image_files.decode(before).astype(int)
    assert np.abs(image_files.decode(copied.read(image)) - pixels).max() <= 2  # drawn alone and not in its former batch
    assert json.loads(copied.read(recipe))["imageSha256"] == hashlib.sha256(copied.read(image)).hexdigest()


def test_an_unreadable_image_of_an_earlier_version_is_drawn_again(
    tiny_model: ModelFolder, copied: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Its recipe has no SHA-256."""
    spec = spec_of(tiny_model, labeling={"attention": {"threshold": 0.6}})
    header, rows = shard_of(spec, tiny_model, Need.LABEL)
    for row, size in zip(rows, (8, 0), strict=False):
        image = image_files.encode(np.zeros((size, size, 3), np.uint8), "png") if size else b"no image"
        copied.write(layout.image("base", row.sample.id, "png"), image)
        copied.write(layout.recipe("base", row.sample.id), b"{}")

    counts = run_shard(header, rows, copied, device="cpu")

    assert counts.drawn == 2
    assert "8x8 pixels, and its recipe has 64x64" in caplog.text
    assert "not an image" in caplog.text or "not a picture" in caplog.text


def test_lost_images_are_named(tiny_model: ModelFolder, copied: FolderStore) -> None:
    spec = spec_of(tiny_model, labeling={"attention": {"threshold": 0.6}})
    header, rows = shard_of(spec, tiny_model, Need.LABEL)
    image = layout.image("base", rows[0].sample.id, "png")

    (copied.root / image).unlink()
    with pytest.raises(Incomplete, match=rows[0].sample.id):
        run_shard(header, rows, copied)
