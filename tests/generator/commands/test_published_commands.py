"""`diffugen verify`, `export`, `merge`, `diff`, `prune` and `view`, on datasets in folders."""

import gzip
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from diffugen_api import layout
from diffugen_api.errors import SpecError
from diffugen_api.orders import WorkOrder
from diffugen_generator.commands.published_at import published_at
from diffugen_generator.commands.view import serving
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.exporting import joined_spec
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.reading import PublishedDataset
from diffugen_generator.store.folder import FolderStore
from tests.generator.commands.published import diffugen, order_of, published, sentence, told, tree
from tests.generator.made import run_shards

SHAPES = ("ball", "star", "square", "triangle")


def folder_of(store: FolderStore, name: str | None = None) -> Path:
    current = json.loads((store.root / "current.json").read_text())
    return store.root / "revisions" / (name or current["dataset"].split("/")[1])


def replaced(path: Path, data: bytes) -> None:
    path.unlink()  # a hard link: the other names keep their content
    path.write_bytes(data)


# --- verify ---


def test_a_whole_dataset_has_no_faults(tmp_path: Path) -> None:
    store, _ = published(tmp_path)

    result = told("verify", store.root)

    assert result["faults"] == []
    assert result["files"] == len(tree(folder_of(store))) - 1
    assert result["samples"] == 8


def test_every_kind_of_fault_is_named_and_nothing_is_repaired(tmp_path: Path) -> None:
    store, _ = published(tmp_path)
    folder = folder_of(store)
    images = sorted((folder / "coco" / "train").iterdir())
    replaced(images[0], images[0].read_bytes()[:-1] + b"\0")
    images[1].unlink()
    replaced(folder / "README.md", b"short")
    samples = sorted((store.root / "samples").rglob("image.png"))
    replaced(samples[0], b"no image")
    samples[1].with_name("recipe.json").write_text("{")
    labels = sorted((store.root / "labels").rglob("*.json"))
    labels[0].write_bytes(labels[1].read_bytes())
    before = tree(store.root)

    result = diffugen("verify", store.root, "--json")

    assert result.exit_code == 65
    faults = {each["key"]: each["why"] for each in json.loads(result.stdout)["faults"]}
    key = {path: path.relative_to(store.root).as_posix() for path in (*images, *samples, *labels)}
    assert faults.pop(key[images[0]]).startswith("its SHA-256 is")
    assert faults.pop(key[images[1]]) == "it is missing"
    assert "it has 5 bytes" in faults.pop((folder / "README.md").relative_to(store.root).as_posix())
    assert "and the manifest says" in faults.pop(key[samples[0]])
    assert "not JSON" in faults.pop(key[samples[1]].replace("image.png", "recipe.json"))
    assert "it is the label of sample" in faults.pop(key[labels[0]])
    assert faults == {}
    assert tree(store.root) == before


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    store, _ = published(tmp_path)
    file = folder_of(store) / "manifest.jsonl.gz"
    lines = gzip.decompress(file.read_bytes()).splitlines()
    row = json.loads(lines[0])
    row["instances"] = [{"class": "ball"}]
    file.write_bytes(gzip.compress(b"\n".join([json.dumps(row).encode(), *lines[2:], b""])))

    result = diffugen("verify", store.root, "--json")

    whys = [each["why"] for each in json.loads(result.stdout)["faults"]]
    assert any(row["id"] in why and "has no 'bbox'" in why for why in whys)
    assert any(why.startswith("it has") for why in whys)


def test_a_pulled_folder_is_verified(tmp_path: Path) -> None:
    store, _ = published(tmp_path)
    told("pull", store.root, tmp_path / "out")
    assert told("verify", tmp_path / "out")["faults"] == []
    replaced(tmp_path / "out" / "current" / "README.md", b"other")

    result = diffugen("verify", tmp_path / "out" / "current")

    assert result.exit_code == 65
    assert "README.md: it has 5 bytes" in result.stdout


def test_what_was_not_pulled_is_no_fault(tmp_path: Path) -> None:
    store, _ = published(tmp_path)
    told("pull", store.root, tmp_path / "out", "--format", "yolo")

    result = told("verify", tmp_path / "out")

    assert (result["faults"], result["notPulled"]) == ([], ["coco", "report"])
    assert "not pulled, so not checked: coco, report" in diffugen("verify", tmp_path / "out").stdout
    next((tmp_path / "out" / "current" / "yolo" / "labels").rglob("*.txt")).unlink()
    assert diffugen("verify", tmp_path / "out").exit_code == 65


# --- export and merge ---


def shown(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the summary of a report."""
    text = files["report/summary.js"].decode().removeprefix("DiffuGenReport.receive('summary','").removesuffix("');\n")
    found: dict[str, Any] = json.loads(text.replace("\\x3c", "<").replace("\\'", "'").replace("\\\\", "\\"))
    return found


def test_an_exported_format_is_what_publishing_writes(tmp_path: Path) -> None:
    store, _ = published(tmp_path)
    formats = ["coco", "yolo", "voc", "masks", "webdataset"]
    everything, _ = published(tmp_path / "all", output={"formats": formats, "splits": {"train": 0.5, "val": 0.5}})

    told("export", store.root, *(f"--format={name}" for name in formats), "--output", tmp_path / "out")

    expected, found = tree(folder_of(everything)), tree(tmp_path / "out")
    for path, data in expected.items():
        if path.split("/")[0] in formats and "instances_" not in path:
            assert found[path] == data, path
    report = {path for path in expected if path == "report.html" or path.startswith("report/")}
    assert report <= found.keys()
    for path in report:
        if path.startswith(("report/index/", "report/thumbnails/")):
            assert found[path] == expected[path], path
    for one, other in zip(shown(found)["stages"], shown(expected)["stages"], strict=True):
        assert {**one, "model": ""} == {**other, "model": ""}
    coco = {path: json.loads(data) for path, data in found.items() if "instances_" in path}
    for path, data in coco.items():
        want = json.loads(expected[path])
        assert {**data, "info": 0} == {**want, "info": 0}
    assert told("verify", tmp_path / "out")["faults"] == []
    assert not (tmp_path / "out" / "images").exists()
    assert not list(tmp_path.glob(".*.part"))


def test_a_pulled_dataset_is_exported_without_its_store(tmp_path: Path) -> None:
    store, _ = published(tmp_path)
    told("pull", store.root, tmp_path / "out", "--format", "yolo")
    (tmp_path / "store").rename(tmp_path / "gone")

    result = told("export", tmp_path / "out", "--format", "coco", "--output", tmp_path / "coco")

    assert result["samples"] == len(list((tmp_path / "coco" / "coco").rglob("*.png")))


def test_bad_exports_are_one_sentence(tmp_path: Path) -> None:
    store, _ = published(tmp_path, output={"formats": ["webdataset"], "splits": {"train": 1}})
    told("pull", store.root, tmp_path / "pulled")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    new = tmp_path / "new"
    for code, words, arguments in (
        (64, "--format: none is given", (store.root, "--output", new)),
        (64, "--format: 'tfrecord' is unknown; there are coco, yolo", (store.root, "--format=tfrecord", "-o", new)),
        (64, "is there already and not empty", (store.root, "--format=coco", "--output", tmp_path / "full")),
        (65, "has no image file of sample", (tmp_path / "pulled", "--format=coco", "--output", new)),
    ):
        result = diffugen("export", *arguments)
        assert (result.exit_code, words in sentence(result)) == (code, True), result.output
    assert not new.exists()
    assert not list(tmp_path.glob(".*.part"))


def test_a_damaged_image_is_not_exported(tmp_path: Path) -> None:
    store, _ = published(tmp_path)
    told("pull", store.root, tmp_path / "out")
    image = next((tmp_path / "out" / "current" / "coco").rglob("*.png"))
    replaced(image, image.read_bytes()[:-1])

    result = diffugen("export", tmp_path / "out", "--format", "voc", "--output", tmp_path / "voc")

    assert result.exit_code == 65
    assert f"the image of sample {image.stem} differs from its SHA-256" in sentence(result)
    assert not (tmp_path / "voc").exists()


def test_a_manifest_that_contradicts_its_dataset_is_not_exported(tmp_path: Path) -> None:
    store, _ = published(tmp_path)
    path = folder_of(store) / "manifest.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    row = next(each for each in rows if each["instances"])
    wrong = {"stage": row | {"stage": "other"}, "split": row | {"split": "other"}}
    wrong["class"] = row | {"instances": [row["instances"][0] | {"class": "other"}]}

    for what, other in wrong.items():
        lines = [json.dumps(other if each is row else each) + "\n" for each in rows]
        replaced(path, gzip.compress("".join(lines).encode()))
        result = diffugen("export", store.root, "--format", "voc", "--output", tmp_path / "voc")
        assert f"sample {row['id']} has the {what} 'other', which dataset.json does not have" in sentence(result)


def test_a_synonym_may_be_a_class_of_the_other_dataset(tmp_path: Path) -> None:
    one, _ = published(tmp_path / "one", classes=[{"name": name} for name in (*SHAPES, "sphere")])
    classes = [{"name": "ball", "synonyms": ["sphere"]}, *({"name": name} for name in SHAPES[1:])]
    other, _ = published(tmp_path / "other", classes=classes, seed=7)

    told("merge", one.root, other.root, "--output", tmp_path / "out", "--name", "both")

    dataset = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert list(dataset["classIds"]) == [*SHAPES, "sphere"]
    result = diffugen("pull", tmp_path / "out", tmp_path / "pulled", "--output-layout", "diffugen")
    assert (result.exit_code, "is merged of several datasets" in sentence(result)) == (64, True)


def test_datasets_are_merged_by_the_names_of_their_classes(tmp_path: Path) -> None:
    one, _ = published(
        tmp_path / "one", classes=[{"name": "ball"}, {"name": "star"}, {"name": "square"}, {"name": "triangle"}]
    )
    other, _ = published(
        tmp_path / "other",
        classes=[{"name": name} for name in ("triangle", "star", "square", "ball")],
        seed=7,
    )

    result = told("merge", one.root, other.root, one.root, "--output", tmp_path / "out", "--name", "both")

    assert result["samples"] + result["rejected"] == 16
    assert result["duplicates"] == 8
    summary = shown(tree(tmp_path / "out"))
    assert (summary["shown"], summary["counts"]["samples"]) == (16, result["samples"])
    dataset = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert dataset["classIds"] == {"ball": 0, "star": 1, "square": 2, "triangle": 3}
    counts = [json.loads((folder_of(store) / "dataset.json").read_text())["classes"] for store in (one, other)]
    for name, splits in dataset["classes"].items():
        assert splits == {split: counts[0][name][split] + counts[1][name][split] for split in splits}
    assert told("verify", tmp_path / "out")["faults"] == []
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("# both\n")
    assert "## Loading" in card


def test_datasets_that_cannot_be_one_are_one_sentence() -> None:
    def named(*names: str) -> PublishedDataset:
        spec = {
            "classes": [{"name": name} for name in names],
            "prompts": {"templates": ["a ball"]},
            "stages": [{"name": "base", "txt2img": {"model": "builtin://shapes"}}],
        }
        ids = {name: number for number, name in enumerate(names)}
        return PublishedDataset(FolderStore(Path("nowhere")), "", {"spec": spec, "splits": {}, "classIds": ids})

    many = [named("ball", *(f"{word} {number}" for number in range(150))) for word in ("thing", "other")]

    with pytest.raises(SpecError) as failure:
        joined_spec(many, ["coco", "voc"])
    assert str(failure.value) == (
        "these datasets cannot be one: spec.output.formats[1]: the masks of voc have values for at most 254 classes: "
        "remove voc from output.formats, or some classes."
    )
    with pytest.raises(SpecError, match=r"cannot be one: spec.classes\[1\].name: 'Ball' already names class 'ball'"):
        joined_spec([named("ball"), named("Ball")], ["coco"])


def test_a_family_in_two_datasets_is_in_one_split(tmp_path: Path) -> None:
    redrawn = {
        "stages": [
            {"name": "base", "txt2img": {"model": str(tmp_path / "model"), "steps": 20, "guidanceScale": 3}},
            {"name": "again", "img2img": {"from": "base", "strength": 0.5, "variables": {"place": ["sand"]}}},
        ],
        "prompts": {
            "templates": ["a ball on {place}"],
            "variables": {"place": ["snow"]},
            "samplesPerPrompt": 12,
        },
    }
    plain = {"prompts": redrawn["prompts"]}
    one, _ = published(tmp_path, **plain, output={"formats": ["coco"], "splits": {"train": 0.5, "val": 0.5}})
    other = FolderStore(tmp_path / "other")
    order = order_of(tmp_path, **redrawn, output={"formats": ["coco"], "splits": {"train": 0.1, "test": 0.9}})
    for _ in range(2):
        plan(order, other)
        run_shards(order, other)
    publish(order, other)

    told("merge", one.root, other.root, "--output", tmp_path / "out")

    rows = [
        json.loads(line) for line in gzip.decompress((tmp_path / "out" / "manifest.jsonl.gz").read_bytes()).splitlines()
    ]
    splits = {row["id"]: row["split"] for row in rows}
    derived = [row for row in rows if "source" in row]
    assert derived
    for row in derived:
        assert row["split"] == splits[row["source"]]


def test_merging_one_dataset_is_an_error(tmp_path: Path) -> None:
    store, _ = published(tmp_path)

    result = diffugen("merge", store.root, "--output", tmp_path / "out")

    assert result.exit_code == 64
    assert "only one dataset is given" in sentence(result)


# --- diff ---


def test_what_changed_between_two_revisions(tmp_path: Path) -> None:
    store, first = published(tmp_path)
    order = order_of(
        tmp_path, quality={"minInstances": 2}, prompts={"templates": ["a ball", "a triangle"], "samplesPerPrompt": 4}
    )
    plan(order, store)
    run_shards(order, store)
    publish(order, store)

    result = told("diff", f"{store.root}/revisions/{first.revision}", store.root)

    assert result["counts"]["added"] == 4
    assert result["counts"]["removed"] == 4
    assert result["settings"]["spec.quality.minInstances"] == {"a": 1, "b": 2}
    assert result["settings"]["spec.prompts.templates"] == {"a": ["a ball", "a star"], "b": ["a ball", "a triangle"]}
    rows = {}
    for revision in (first.revision, order.revision):
        data = gzip.decompress((folder_of(store, revision) / "manifest.jsonl.gz").read_bytes())
        rows[revision] = {row["id"]: row for row in map(json.loads, data.splitlines())}
    both = set(rows[first.revision]) & set(rows[order.revision])
    rejected = [i for i in both if rows[first.revision][i]["accepted"] and not rows[order.revision][i]["accepted"]]
    assert result["counts"].get("rejected", 0) == len(rejected) > 0
    text = diffugen("diff", f"{store.root}/revisions/{first.revision}", store.root)
    assert text.exit_code == 0
    assert "spec.quality.minInstances: 1 → 2" in text.stdout


def test_equal_revisions_have_no_difference(tmp_path: Path) -> None:
    store, _ = published(tmp_path)
    told("pull", store.root, tmp_path / "out")

    result = diffugen("diff", store.root, tmp_path / "out")

    assert result.exit_code == 0
    assert "no difference in 8 samples" in result.stdout


# --- prune ---


def everything(store: FolderStore) -> set[str]:
    return set(store.list(""))


def three_revisions(tmp_path: Path) -> tuple[FolderStore, list[str]]:
    """Publish three revisions: the second has other samples, the third other labels."""
    store, first = published(tmp_path)
    revisions = [first.revision]
    stars = {"templates": ["a star", "a square"], "samplesPerPrompt": 4}
    labeling: dict[str, Any] = {"attention": {"threshold": 0.7}}
    for changes in ({"prompts": stars}, {"prompts": stars, "labeling": labeling}):
        order = order_of(tmp_path, **changes)
        plan(order, store)
        run_shards(order, store)
        publish(order, store)
        revisions.append(order.revision)
    return store, revisions


def test_a_dry_run_deletes_nothing_and_counts_all(tmp_path: Path) -> None:
    store, revisions = three_revisions(tmp_path)
    before = tree(store.root)

    shown = told("prune", store.root, "--keep", "1")

    assert tree(store.root) == before
    assert shown["kept"] == [revisions[2]]
    assert set(shown["removed"]) == set(revisions[:2])
    told_again = told("prune", store.root, "--keep", "1", "--delete")
    assert {**shown, "deleted": True} == {**told_again, "removed": shown["removed"]}
    gone = {key: len(data) for key, data in before.items() if key not in everything(store)}
    assert sum(shown["objects"].values()) == len(gone)
    assert sum(shown["bytes"].values()) == sum(gone.values())


def test_what_kept_revisions_name_stays(tmp_path: Path) -> None:
    store, revisions = three_revisions(tmp_path)

    told("prune", store.root, "--keep", "2", "--delete")

    assert set(store.folders("revisions/")) == set(revisions[1:])
    for revision in revisions[1:]:
        assert told("verify", f"{store.root}/revisions/{revision}")["faults"] == []
    rows = gzip.decompress((folder_of(store) / "manifest.jsonl.gz").read_bytes()).splitlines()
    named = {json.loads(row)["id"] for row in rows}
    assert {key.split("/")[3] for key in store.list("samples/")} == named
    assert {key.split("/")[4].partition(".")[0] for key in store.list("labels/")} == named
    assert len(set(store.folders("labels/base/"))) == 2, "the labels of both"
    assert json.loads((store.root / "current.json").read_text())["history"][0]["revision"] == revisions[1]
    assert sum(told("prune", store.root, "--keep", "2")["objects"].values()) == 0
    order = order_of(tmp_path, prompts={"templates": ["a star", "a square"], "samplesPerPrompt": 4})
    assert (plan(order, store).plan or [])[0].draw == 0, "nothing is drawn again"


def test_the_samples_of_an_unfinished_run_stay(tmp_path: Path) -> None:
    store, _ = published(tmp_path)
    order = order_of(tmp_path, prompts={"templates": ["a square"], "samplesPerPrompt": 3})
    plan(order, store)
    run_shards(order, store)
    before = tree(store.root)

    result = told("prune", store.root, "--keep", "1", "--delete")

    assert result["unfinished"] == [order.revision]
    assert tree(store.root) == before
    publish(order, store)


def test_the_samples_of_a_run_that_was_killed_while_publishing_stay(tmp_path: Path) -> None:
    store, _ = published(tmp_path)
    order = order_of(tmp_path, prompts={"templates": ["a square"], "samplesPerPrompt": 3})
    plan(order, store)
    run_shards(order, store)
    folder = layout.revision_folder(order.revision)
    store.write(layout.addresses(folder), b"{}")  # written first
    before = tree(store.root)

    result = told("prune", store.root, "--keep", "1", "--delete")

    assert (result["unfinished"], result["removed"]) == ([order.revision], [])
    assert tree(store.root) == before
    publish(order, store)


def test_a_current_revision_that_is_published_again_keeps_its_samples(tmp_path: Path) -> None:
    store, order = published(tmp_path)
    (folder_of(store) / "dataset.json").unlink()
    before = tree(store.root)

    result = told("prune", store.root, "--keep", "1", "--delete")

    assert result["unfinished"] == [order.revision]
    assert tree(store.root) == before
    shutil.rmtree(store.root / "plans" / order.revision)
    lost = diffugen("prune", store.root, "--delete")
    assert lost.exit_code == 64
    assert "has lost the dataset.json of its current revision" in sentence(lost)


def assert_that_prune_keeps_all_when_drawn_again(order: WorkOrder, store: FolderStore) -> None:
    plan(order, store)
    run_shards(order, store)
    before = tree(store.root)

    result = told("prune", store.root, "--keep", "1", "--delete")

    assert sum(result["objects"].values()) == 0
    assert tree(store.root) == before


def test_a_run_of_the_same_revision_with_another_model_keeps_its_samples(tmp_path: Path) -> None:
    store, order = published(tmp_path)
    (tmp_path / "model" / "unet" / "config.json").write_text(
        (tmp_path / "model" / "unet" / "config.json").read_text() + " "
    )
    assert_that_prune_keeps_all_when_drawn_again(order, store)


def test_pruning_keeps_what_a_changed_prompts_file_drew(tmp_path: Path) -> None:
    file = tmp_path / "captions.txt"
    file.write_text("a ball\na star\n")
    store, order = published(tmp_path, prompts={"file": str(file)})
    file.write_text("a ball\na square\n")
    assert_that_prune_keeps_all_when_drawn_again(order, store)


def test_a_dataset_with_nothing_but_a_prompts_file_is_pruned_and_exported(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("a ball\na star\n" * 2)
    prompts = {"file": str(tmp_path / "captions.txt"), "samplesPerPrompt": 2}
    store, _ = published(tmp_path, prompts=prompts)
    unfinished = order_of(tmp_path, prompts={**prompts, "samplesPerPrompt": 3})
    plan(unfinished, store)

    assert told("prune", store.root)["unfinished"] == [unfinished.revision]

    told("export", store.root, "--format", "voc", "--output", tmp_path / "voc")
    assert json.loads((tmp_path / "voc" / "dataset.json").read_text())["samples"] == 4


def test_pruning_names_what_is_wrong(tmp_path: Path) -> None:
    store, _ = published(tmp_path)
    (tmp_path / "empty").mkdir()
    order = order_of(tmp_path, prompts={"templates": ["a square"], "samplesPerPrompt": 3})
    store.write(layout.planned_spec(order.revision), b"{}")
    for words, arguments in (
        ("--keep: 0 is below 1", (store.root, "--keep", "0")),
        ("nothing is published in", (tmp_path / "empty",)),
        (f"is being planned, revision {order.revision}", (store.root,)),
    ):
        result = diffugen("prune", *arguments)
        assert (result.exit_code, words in sentence(result)) == (64, True), result.output


# --- view ---


def get(address: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_a_revision_is_served_on_this_machine_only(tmp_path: Path) -> None:
    store, _ = published(tmp_path)
    with serving(published_at(str(store.root))) as address:
        base = address.rsplit("/", maxsplit=1)[0]
        assert base.startswith("http://127.0.0.1:")
        folder = folder_of(store)
        for path in ("contact-sheet.png", "dataset.json", "manifest.jsonl.gz"):
            status, headers, data = get(f"{base}/{path}")
            assert (status, data) == (200, (folder / path).read_bytes())
            assert "default-src 'self'" in headers["Content-Security-Policy"]
        status, headers, data = get(f"{base}/contact-sheet.png", Range="bytes=10-19")
        assert (status, data) == (206, (folder / "contact-sheet.png").read_bytes()[10:20])
        assert get(f"{base}/")[0] == 200
        for path in (
            "nothing.png",
            "..%2F..%2Fcurrent.json",
            "../../current.json",
            "%2e%2e/%2e%2e/current.json",
            "coco",
        ):
            assert get(f"{base}/{path}")[0] == 404, path
        assert get(f"{base.rsplit('/', maxsplit=1)[0]}/contact-sheet.png")[0] == 404, "the word is missing"


def test_the_report_is_the_first_page(tmp_path: Path) -> None:
    store, _ = published(tmp_path)

    with serving(published_at(str(store.root))) as address:
        assert address.endswith("/report.html")
        assert get(address)[2] == (folder_of(store) / "report.html").read_bytes()
        (folder_of(store) / "report.html").unlink()
    with serving(published_at(str(store.root))) as address:
        assert address.endswith("/")


def test_data_in_the_overview_stays_text(tmp_path: Path) -> None:
    store, _ = published(tmp_path, prompts={"templates": ["a ball <script>alert(1)</script>"], "samplesPerPrompt": 4})
    found = published_at(str(store.root))

    with serving(found) as address:
        page = get(f"{address.rsplit('/', maxsplit=1)[0]}/")[2].decode()

    assert "<script>" not in page


@pytest.mark.parametrize("command", ["pull", "verify", "export", "merge", "diff", "prune", "view"])
def test_every_command_has_help(command: str) -> None:
    result = diffugen(command, "--help")

    assert result.exit_code == 0
    assert "URI" in result.stdout or command == "diff"
