"""`diffugen label`: labels for existing images."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from diffugen_api.plan import Sample, SpecError
from diffugen_api.v1alpha1.quality import Quality
from diffugen_generator.cli import app
from diffugen_generator.commands.display import PlainDisplay
from diffugen_generator.commands.locations import source_at
from diffugen_generator.failures import Interrupted
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.given.image_sources import BucketSource, FolderSource, ImageSource, SourceFile
from diffugen_generator.given.label import label, spec_of
from diffugen_generator.labeling.attention.fitting import fitted
from diffugen_generator.labeling.attention.posthoc import PosthocAttention
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.quality.verdicts import Verdict
from diffugen_generator.results import LabelResult
from diffugen_generator.samples.labels import Instance, Label
from diffugen_generator.store.folder import FolderStore
from generator.training import scenes
from tests.generator.made import an_order, everything_in
from tests.generator.test_cli import a_manifest

ANY = Quality(min_instances=0, min_area_fraction=0)
DETECTOR = {"type": "transformers", "model": "builtin://shapes-segmenter"}


def write(path: Path, raster: NDArray[Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(raster).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four upright RGB images of three sizes and two formats, two other images, and files that cannot be labeled."""
    drawn = scenes.draw(4, np.random.default_rng(5)).images
    folder = tmp_path / "mine"
    write(folder / "a.png", drawn[0])
    write(folder / "b.png", drawn[1])
    write(folder / "deep" / "c.jpg", np.asarray(Image.fromarray(drawn[2]).resize((150, 90))), quality=95)
    write(folder / "d.png", np.asarray(Image.fromarray(drawn[3]).resize((75, 131))))
    write(folder / "gray.png", drawn[0][..., 0])
    rotated = Image.Exif()
    rotated[0x0112] = 6
    write(folder / "rotated.jpg", drawn[1][:48], exif=rotated)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:200])
    (folder / "empty.jpg").touch()
    Image.fromarray(drawn[0]).save(folder / "animated.gif", save_all=True, append_images=[Image.fromarray(drawn[1])])
    (folder / "phone.heic").write_bytes(b"what Pillow cannot read")
    write(folder / "tiny.png", drawn[0][:8, :8])
    (folder / "z-again.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "notes.md").write_text("no image")
    return folder


def labelled(
    model: ModelFolder,
    folder: Path,
    store: FolderStore,
    *classes: str,
    stop: Event | None = None,
    presence: float | None = 0,
    quality: Quality = ANY,
    source: ImageSource | None = None,
) -> LabelResult:
    spec = spec_of(classes=classes or scenes.CLASSES, model=model.uri, presence=presence)
    spec = spec.model_copy(update={"quality": quality})
    display = PlainDisplay(Console(file=io.StringIO()))
    given = source or FolderSource(folder)
    return label("mine", spec, given, store, display, device="cpu", stop=stop or Event())


def manifest(store: FolderStore) -> dict[str, Any]:
    revision = json.loads(store.read("current.json"))["revision"]
    lines = gzip.decompress(store.read(f"revisions/{revision}/manifest.jsonl.gz")).splitlines()
    return {row["variables"]["file"]: row for row in map(json.loads, lines)}


def test_a_folder_with_unusable_files_is_labeled_and_each_of_them_is_named(
    tiny_model: ModelFolder, folder: Path, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "out")
    before = everything_in(folder)

    result = labelled(tiny_model, folder, store)

    rows = manifest(store)
    skipped = {name: row["reason"] for name, row in rows.items() if not row["image"]}
    assert skipped == {
        "animated.gif": "UnsupportedFormat",
        "broken.png": "Unreadable",
        "empty.jpg": "Unreadable",
        "phone.heic": "UnsupportedFormat",
        "tiny.png": "UnsupportedSize",
        "z-again.png": "RepeatedFile",
    }
    assert dict(result.skipped) == {reason: list(skipped.values()).count(reason) for reason in skipped.values()}
    assert set(rows) - set(skipped) == {"a.png", "b.png", "d.png", "deep/c.jpg", "gray.png", "rotated.jpg"}
    sizes = {name: (rows[name]["width"], rows[name]["height"]) for name in ("a.png", "d.png", "deep/c.jpg")}
    assert sizes == {"a.png": (64, 64), "d.png": (75, 131), "deep/c.jpg": (150, 90)}
    assert result.converted == 2
    assert {name: row["given"].get("converted") for name, row in rows.items() if name not in skipped} == {
        **dict.fromkeys(("a.png", "b.png", "d.png", "deep/c.jpg")),
        "gray.png": {"format": "png", "mode": "L", "orientation": 1},
        "rotated.jpg": {"format": "jpeg", "mode": "RGB", "orientation": 6},
    }
    assert (rows["rotated.jpg"]["width"], rows["rotated.jpg"]["height"]) == (48, 64)
    for name, row in rows.items():
        assert all(each["segmentation"]["size"] == [row["height"], row["width"]] for each in row["instances"])
        if name in skipped:
            continue
        assert row["given"]["file"] == name
        assert row["given"]["sha256"] == hashlib.sha256(before[name]).hexdigest()
        if "converted" not in row["given"]:
            assert store.read(row["image"]) == before[name]  # the same bytes
    assert everything_in(folder) == before
    revision = json.loads(store.read("current.json"))["revision"]
    annotations = json.loads(store.read(f"revisions/{revision}/coco/annotations/instances_train.json"))
    assert all(image["given"] == rows[image["given"]["file"]]["given"] for image in annotations["images"])
    assert store.exists(f"revisions/{revision}/contact-sheet.png")
    assert "These images existed before" in store.read(f"revisions/{revision}/README.md").decode()


def test_images_with_evidence_are_not_measured_again(tiny_model: ModelFolder, folder: Path, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "out")
    first = labelled(tiny_model, folder, store)
    current = store.read("current.json")
    write(folder / "new.png", scenes.draw(1, np.random.default_rng(9)).images[0])

    second = labelled(tiny_model, folder, store)

    counts = [each.run.stages[0].counts for each in (first, second)]
    assert [(each.seen, each.reused) for each in counts] == [(6, 0), (1, 6)]
    assert store.read("current.json") != current
    (folder / "new.png").unlink()
    labelled(tiny_model, folder, store)
    assert json.loads(store.read("current.json"))["manifestSHA256"] == json.loads(current)["manifestSHA256"]


def test_a_stopped_run_is_continued(tiny_model: ModelFolder, folder: Path, tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted):
        labelled(tiny_model, folder, FolderStore(tmp_path / "out"), stop=stop)

    assert labelled(tiny_model, folder, FolderStore(tmp_path / "out")).run.stages[0].counts.seen == 6


@pytest.mark.parametrize(("caption", "nameless"), [("holiday 2021", 1), ("our Suns", 1), ("the Sun, 2021", 0)])
def test_captions_that_name_no_class_are_counted(
    tiny_folder: Path, tmp_path: Path, caption: str, nameless: int
) -> None:
    write(tmp_path / "mine" / "a.png", scenes.draw(1, np.random.default_rng(5)).images[0])
    (tmp_path / "mine" / "a.txt").write_text(caption)
    store = str(tmp_path / "out")
    command = ["label", str(tmp_path / "mine"), "--store", store, "--device", "cpu"]
    like = a_manifest(
        tmp_path,
        str(tiny_folder),
        classes=[{"name": "star", "synonyms": ["sun"]}],
        prompts={"templates": ["a sun"]},
        quality={"minInstances": 0, "minAreaFraction": 0},
    )

    said = CliRunner().invoke(app, [*command, "--like", str(like)])
    told = json.loads(CliRunner().invoke(app, [*command, "--like", str(like), "--json"]).stdout)

    assert (told["nameless"], told["uncaptioned"]) == (nameless, 0)
    hint = f"! images whose caption names no class: {nameless}; attention labels nothing in them"
    assert any(line.startswith(hint) for line in said.output.splitlines()) is bool(nameless)


def test_captions_that_name_no_class_are_reported_if_no_image_is_accepted(
    tiny_model: ModelFolder, tmp_path: Path
) -> None:
    write(tmp_path / "mine" / "a.png", scenes.draw(1, np.random.default_rng(5)).images[0])
    (tmp_path / "mine" / "a.txt").write_text("holiday 2021")

    with pytest.raises(SpecError, match="Captions that name no class: 1; attention") as refused:
        labelled(tiny_model, tmp_path / "mine", FolderStore(tmp_path / "out"), quality=Quality())

    assert refused.value.reason == "NothingAccepted"


def test_a_caption_beside_an_image_is_its_prompt(tiny_model: ModelFolder, folder: Path, tmp_path: Path) -> None:
    (folder / "a.txt").write_text("a red star\n on snow")
    store = FolderStore(tmp_path / "out")

    done = labelled(tiny_model, folder, store)

    assert done.uncaptioned == 6  # including the second copy of a.png
    rows = manifest(store)
    assert rows["a.png"]["prompt"] == rows["a.png"]["given"]["caption"] == "a red star on snow"
    assert "caption" not in rows["b.png"]["given"]
    assert {each["class"] for each in rows["a.png"]["instances"]} <= {"star"}
    assert rows["b.png"]["prompt"] == "a photo of a ball and a square and a triangle and a star"


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"model": "builtin://shapes"}, 0.75),
        ({"detector": "builtin://shapes-segmenter"}, 0.85),
    ],
)
def test_drawn_scenes_are_labeled(
    shapes_model: ModelFolder, tmp_path: Path, options: dict[str, Any], least: float
) -> None:
    drawn = scenes.draw(24, np.random.default_rng(11))
    for number, raster in enumerate(drawn.images):
        large = Image.fromarray(raster).resize((96, 96), Image.Resampling.BICUBIC)
        write(tmp_path / "mine" / f"{number:03d}.png", np.asarray(large))
        named = [scenes.CLASSES[k] for k, m in zip(drawn.classes[number], drawn.masks[number], strict=True) if m.any()]
        (tmp_path / "mine" / f"{number:03d}.txt").write_text(" and ".join(f"a {name}" for name in named))
    store = FolderStore(tmp_path / "out")
    display = PlainDisplay(Console(file=io.StringIO()))

    spec = spec_of(classes=scenes.CLASSES, **options)
    label("mine", spec, FolderSource(tmp_path / "mine"), store, display, device="cpu", stop=Event())

    rows = manifest(store)
    overlaps = []
    for number in range(24):
        found = [Instance.from_row(row) for row in rows[f"{number:03d}.png"]["instances"]]
        for kind, mask in zip(drawn.classes[number], drawn.masks[number], strict=True):
            if mask.any():
                true = np.asarray(Image.fromarray(mask).resize((96, 96), Image.Resampling.NEAREST))
                mine = [each.segmentation.mask() for each in found if each.class_name == scenes.CLASSES[kind]]
                seen = np.any(mine, axis=0) if mine else np.zeros_like(true)
                overlaps.append((seen & true).sum() / max(1, (seen | true).sum()))
    assert np.mean(overlaps) > least


def test_a_detector_alone_needs_no_diffusion_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model that draws is looked for")

    for place in ("planning.plan.resolve", "stages.session_cache.resolve", "models.resolve.resolve"):
        monkeypatch.setattr(f"diffugen_generator.{place}", refuse)
    spec = spec_of(classes=["ball", "star"], detector="builtin://shapes-segmenter")
    store = FolderStore(tmp_path / "out")
    display = PlainDisplay(Console(file=(told := io.StringIO())))

    done = label("mine", spec, FolderSource(folder), store, display, device="cpu", stop=Event())

    assert done.run.stages[0].counts.seen == 6
    assert done.uncaptioned == 0
    assert f"publishing (images): {len(manifest(store))}/{len(manifest(store))} (100 %)" in told.getvalue()
    card = store.read(f"{done.run.published.uri.removeprefix(store.uri)[1:]}/README.md").decode()
    assert "a detector gave the labels" in card
    assert "| `builtin://shapes-segmenter` |" in card
    assert "attention" not in card
    assert "txt2img" not in card


def test_attention_gets_an_image_of_the_size_that_the_model_was_trained_at(
    tiny_model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, ...]] = []
    look = PosthocAttention.look

    def spied(self: PosthocAttention, seen: Sequence[LabelInput], *, batch: int | None = None) -> list[AttentionMaps]:
        shown.extend(each.image.shape for each in seen)
        return look(self, seen, batch=batch)

    monkeypatch.setattr(PosthocAttention, "look", spied)
    drawn = scenes.draw(1, np.random.default_rng(5)).images[0]
    write(tmp_path / "mine" / "photo.jpg", np.asarray(Image.fromarray(drawn).resize((1200, 600))))

    labelled(tiny_model, tmp_path / "mine", store := FolderStore(tmp_path / "out"))

    assert shown == [(48, 88, 3)]
    (row,) = manifest(store).values()
    assert (row["height"], row["width"]) == (600, 1200)
    assert all(each["segmentation"]["size"] == [600, 1200] for each in row["instances"])


@pytest.mark.parametrize(
    ("given", "title"),
    [
        ({}, "a prompt"),
        ({"file": "deep/c.jpg", "sha256": "0" * 64}, "deep/c.jpg"),
        ({"file": "a.png", "sha256": "0" * 64, "caption": "a red star"}, "a.png: a red star"),
    ],
)
def test_the_contact_sheet_names_files_and_their_captions(given: dict[str, str], title: str) -> None:
    sample = Sample("0" * 32, "a prompt", 1, 0, {})
    labeled = LabeledSample(sample, "given", "train", "", "png", 64, 64, Verdict((), ""), Label(sample.id, ()), given)

    assert labeled.title == title


@pytest.mark.parametrize(("size", "expected"), [((64, 64), (64, 64)), ((90, 150), (48, 80)), ((3000, 1000), (112, 40))])
def test_images_are_resized_to_a_size_that_suits_the_model(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted(np.zeros((*size, 3), np.uint8), 64).shape == (*expected, 3)


def test_options_override_the_manifest() -> None:
    like = an_order("builtin://shapes", labeling={"attention": {"threshold": 0.6}}, quality={"minInstances": 0}).spec

    spec = spec_of(classes=["pickup=truck, ute"], formats=["coco"], like=like)

    assert [(each.name, each.synonyms) for each in spec.classes] == [("pickup", ["truck", "ute"])]
    assert spec.labeling.attention is not None
    assert (spec.labeling.attention.threshold, spec.quality.min_instances) == (0.6, 0)
    assert spec.output.formats == ["coco"]
    assert spec.stages[0].txt2img is not None
    assert spec.stages[0].txt2img.model == "builtin://shapes"


@pytest.mark.parametrize(
    ("labeling", "options", "labelers"),
    [
        ({"detector": DETECTOR}, {}, (False, True)),
        ({"detector": DETECTOR}, {"model": "builtin://shapes"}, (True, True)),
        ({"detector": DETECTOR}, {"detector": DETECTOR["model"]}, (False, True)),
        ({"detector": DETECTOR}, {"model": "builtin://shapes", "detector": DETECTOR["model"]}, (True, True)),
        ({"attention": {}}, {"detector": DETECTOR["model"]}, (True, True)),
        ({"attention": {}}, {}, (True, False)),
    ],
)
def test_the_manifest_sets_the_labelers_and_options_add_to_them(
    labeling: dict[str, Any], options: dict[str, Any], labelers: tuple[bool, bool]
) -> None:
    like = an_order("builtin://shapes", labeling=labeling).spec

    found = spec_of(like=like, **options).labeling

    assert (found.attention is not None, found.detector is not None) == labelers


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "builtin://shapes"}, "--class: say what to look for"),
        ({"classes": ["car"]}, "--model: name the model that looks"),
        ({"classes": ["car", "car"], "model": "m"}, "class"),
        ({"classes": ["car"], "model": "m", "formats": ["voc?"]}, "output.formats"),
    ],
)
def test_missing_or_invalid_settings_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        spec_of(**options)


def test_the_command_prints_its_results(folder: Path, tmp_path: Path) -> None:
    options = ["--store", str(tmp_path / "out"), "--detector", "builtin://shapes-segmenter", "--device", "cpu"]
    given = ["--class", "ball", "--class", "star=sun"]

    done = CliRunner().invoke(app, ["label", str(folder), *options, *given])

    assert done.exit_code == 0, done.output
    said = done.output.splitlines()
    skipped = "skipped (RepeatedFile 1, Unreadable 2, UnsupportedFormat 2, UnsupportedSize 1)"
    assert f"12 files: 6 images (2 converted to upright RGB), 6 {skipped}; 1 other file" in said
    assert "6 images: 6 seen by a model, 0 from stored evidence, 0 reused" in said
    assert (tmp_path / "out" / "default" / "labelled" / "current.json").exists()
    nothing = CliRunner().invoke(app, ["label", str(tmp_path / "out" / "none"), *options, *given])
    assert nothing.exit_code == 64
    assert "there is no folder" in nothing.output
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "none was found" in CliRunner().invoke(app, ["label", str(empty), *options, *given]).output


def images_in(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        write(folder / name, scenes.draw(1, np.random.default_rng(number)).images[0])


def reasons(store: FolderStore) -> dict[str, str]:
    return {name: row["reason"] for name, row in manifest(store).items() if not row["image"]}


def test_the_command_never_takes_its_own_output(tmp_path: Path) -> None:
    images_in(tmp_path / "mine", "a.png", "b.png", "default/c.png")
    command = ["label", str(tmp_path / "mine"), "--detector", "builtin://shapes-segmenter", "--device", "cpu", "--json"]
    command += [word for name in scenes.CLASSES for word in ("--class", name)]
    inside, same = str(tmp_path / "mine" / "out"), str(tmp_path / "mine")

    counts = [
        json.loads(CliRunner().invoke(app, [*command, "--store", store, "--name", name]).stdout)["published"]["samples"]
        for store, name in [(inside, "one"), (inside, "one"), (inside, "two"), (inside, "one")]
    ]
    here = [json.loads(CliRunner().invoke(app, [*command, "--store", same]).stdout) for _ in range(2)]

    assert len(set(counts)) == 1
    assert [each["published"]["samples"] for each in here] == [counts[0]] * 2
    assert here[1]["skipped"] == {"PublishedDataset": 2}
    own = CliRunner().invoke(
        app, [*command[:1], f"{inside}/default/one/samples", *command[2:], "--store", inside, "--name", "one"]
    )
    assert own.exit_code == 64
    assert "is a folder of the dataset that --store and --name name" in own.output


def test_each_file_that_cannot_be_read_is_skipped_with_its_reason(tiny_model: ModelFolder, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    images_in(mine, "a.png", "b.jfif.png", "deep/c.png")
    (mine / "b.jfif.png").rename(mine / "b.jfif")
    (mine / os.fsdecode(b"caf\xe9.png")).write_bytes((mine / "a.png").read_bytes())
    os.mkfifo(mine / "queue.png")
    os.mkfifo(mine / "a.txt")
    (mine / "loop").symlink_to(mine)
    (mine / "deep" / "up").symlink_to("..")
    (mine / "itself.png").symlink_to(mine / "itself.png")
    (mine / "nothing.png").symlink_to(tmp_path / "nothing")
    (mine / "linked.png").symlink_to(mine / "deep" / "c.png")
    (mine / "folder.png").mkdir()
    for name in ("README", "x.mp4", "alone.txt"):
        (mine / name).write_text("no image")
    store = FolderStore(tmp_path / "out")

    done = labelled(tiny_model, mine, store)

    assert reasons(store) == {
        "caf\\xe9.png": "NameNotUTF8",
        "deep/up": "LinkLoop",
        "itself.png": "BrokenLink",
        "linked.png": "RepeatedFile",
        "loop": "LinkLoop",
        "nothing.png": "BrokenLink",
        "queue.png": "NotAFile",
    }
    assert set(manifest(store)) - set(reasons(store)) == {"a.png", "b.jfif", "deep/c.png"}
    assert done.others == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="as root, the test can act as another user and return")
def test_what_may_not_be_read_is_skipped(tiny_model: ModelFolder, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    images_in(mine, "a.png", "secret.png", "hidden/b.png")
    (mine / "secret.png").chmod(0)
    (mine / "hidden").chmod(0)
    for folder in (mine, *mine.parents):
        if folder.is_relative_to("/tmp"):
            folder.chmod(0o755)
    store = FolderStore(tmp_path / "out")
    source = FolderSource(mine)

    class AsNobody:
        uri = source.uri
        check = staticmethod(source.check)

        @staticmethod
        def files() -> Iterator[SourceFile]:
            os.seteuid(65534)
            try:
                yield from list(source.files())
            finally:
                os.seteuid(0)

        @staticmethod
        def read(name: str) -> bytes:
            if name == "secret.png":
                raise PermissionError(13, "Permission denied")
            return source.read(name)

    labelled(tiny_model, mine, store, source=AsNobody())

    assert reasons(store) == {"hidden": "NoPermission", "secret.png": "NoPermission"}


@pytest.mark.parametrize(
    ("data", "caption"),
    [
        (b"\xef\xbb\xbfa red ball", "a red ball"),
        ("a café and a ball".encode("utf-16"), "a café and a ball"),
        ("a café".encode("latin-1"), None),
        (b"a ball\x00\xff", None),
    ],
)
def test_captions_are_read_in_their_encoding_or_the_image_is_skipped(
    tiny_model: ModelFolder, tmp_path: Path, data: bytes, caption: str | None
) -> None:
    images_in(tmp_path / "mine", "a.png", "z.png")
    (tmp_path / "mine" / "a.txt").write_bytes(data)
    store = FolderStore(tmp_path / "out")

    labelled(tiny_model, tmp_path / "mine", store)

    if caption is None:
        assert reasons(store) == {"a.png": "CaptionNotUTF8"}
    else:
        assert manifest(store)["a.png"]["given"]["caption"] == caption


def test_attention_alone_labels_only_images_with_a_caption(tiny_model: ModelFolder, tmp_path: Path) -> None:
    images_in(tmp_path / "mine", "a.png", "b.png")
    store = FolderStore(tmp_path / "out")
    with pytest.raises(
        SpecError, match=r"no image has a caption; attention finds every class.*--presence 0\.05"
    ) as none:
        labelled(tiny_model, tmp_path / "mine", store, presence=None)
    assert none.value.reason == "NoCaptions"
    (tmp_path / "mine" / "a.txt").write_text("a ball")

    done = labelled(tiny_model, tmp_path / "mine", store, presence=None)

    assert reasons(store) == {"b.png": "NoCaption"}
    assert dict(done.skipped) == {"NoCaption": 1}


def test_presence_needs_attention() -> None:
    with pytest.raises(SpecError, match="--presence is for labels from attention"):
        spec_of(classes=["ball"], detector="builtin://shapes-segmenter", presence=0.05)


@pytest.mark.parametrize("name", ["../../../escaped", "a/b", "", "Ball", ".."])
def test_a_name_that_is_no_folder_of_the_store_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    options = ["--store", str(tmp_path / "out"), "--class", "ball", "--model", "builtin://shapes", "--name", name]

    done = CliRunner().invoke(app, ["label", str(folder), *options])

    assert done.exit_code == 64
    assert f"--name: {name!r} is not a valid name" in done.output
    assert not (tmp_path / "out").exists()


def test_objects_of_the_datasets_in_the_same_bucket_are_left_out(tmp_path: Path) -> None:
    images_in(tmp_path, "a.png", "out/default/one/samples/b.png", "out/c.png")
    found = BucketSource(FolderStore(tmp_path), "out/default/").files()

    assert [each.name for each in found] == ["a.png", "out/c.png"]


@pytest.mark.parametrize(
    ("source", "store", "left_out"),
    [
        ("s3://data/photos", "s3://data/photos/out", "out/default/"),
        ("s3://data", "s3://data", "default/"),
        ("s3://data/photos", "s3://data/photos", "default/"),
        ("s3://data/photos", "s3://data/photos2", ""),
        ("s3://data/photos", "s3://other/photos", ""),
        ("s3://data/out/default/one/samples", "s3://data/out", ""),
        ("s3://data/photos", "/somewhere", ""),
    ],
)
def test_where_the_datasets_lie_below_the_images(source: str, store: str, left_out: str) -> None:
    found = source_at(source, "http://127.0.0.1:1", store, "one")

    assert isinstance(found, BucketSource)
    assert found.left_out == left_out
