"""The files of the report: what the index and the blocks hold, and that nothing in them is code."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zlib
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffugen_generator.publishing.report import report as report_module
from diffugen_generator.publishing.report.data_files import data_file
from diffugen_generator.publishing.report.report import page_files
from diffugen_generator.samples.labels import Rle
from tests.generator.made import manifest_lines, planned_shards
from tests.generator.publishing.report.datasets import HEIGHT, MAP, WIDTH, Published, image_of, maps_of, published


def content_of(file: Path) -> Any:
    """The JSON of a data file, read as JavaScript reads the literal."""
    name = file.relative_to(file.parents[1]).with_suffix("").as_posix() if file.name != "summary.js" else "summary"
    call = re.fullmatch(rf"DiffuGenReport\.receive\('{name}','(.*)'\);\n", file.read_text(), re.DOTALL)
    assert call, "one call with one literal"
    escapes = {"\\\\": "\\", "\\'": "'", "\\x3c": "<", "\\u2028": "\u2028", "\\u2029": "\u2029"}
    return json.loads(re.sub(r"\\(\\|'|x3c|u202[89])", lambda found: escapes[found[0]], call[1]))


def numbers(kind: str, text: str) -> list[int]:
    found = array(kind)
    found.frombytes(base64.b64decode(text))
    return found.tolist()


@pytest.fixture(scope="module")
def folder(made: Published) -> Path:
    return made.folder / "report"


def test_every_file_is_in_dataset_json(made: Published) -> None:
    listed = json.loads((made.folder / "dataset.json").read_text())["files"]

    written = [made.folder / "report.html", *(made.folder / "report").rglob("*.*")]
    paths = {path.relative_to(made.folder).as_posix(): path for path in written if path.is_file()}
    assert {"report.html", "report/main.js", "report/summary.js", "report/index/00000.js"} <= set(paths)
    for name, path in paths.items():
        assert listed[name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_index_has_what_the_manifest_has(made: Published, folder: Path) -> None:
    lines = manifest_lines(made.store, made.order.revision)

    index = content_of(folder / "index" / "00000.js")

    assert index["ids"] == [line["id"] for line in lines]
    assert [index["prompts"][number] for number in numbers("H", index["prompt"])] == [line["prompt"] for line in lines]
    assert [index["reasons"][number] for number in numbers("H", index["reason"])] == [line["reason"] for line in lines]
    assert [made.order.spec.drawing_stages[number].name for number in numbers("B", index["stage"])] == [
        line["stage"] for line in lines
    ]
    assert numbers("H", index["count"]) == [len(line["instances"]) for line in lines]
    assert index["sources"] == [line.get("source", "") for line in lines]
    objects = [(line, each) for line in lines for each in line["instances"]]
    names = [each.name for each in made.order.spec.classes]
    assert [names[number] for number in numbers("H", index["objects"]["class"])] == [
        each["class"] for _, each in objects
    ]
    np.testing.assert_allclose(
        np.array(numbers("H", index["objects"]["size"])) / 0xFFFF,
        [(each["area"] / (WIDTH * HEIGHT)) ** 0.5 for _, each in objects],
        atol=1e-4,
    )
    np.testing.assert_allclose(
        np.array(numbers("B", index["objects"]["score"])) / 255, [each["score"] for _, each in objects], atol=0.003
    )
    colors = next(each for each in index["variables"] if each["name"] == "color")
    assert [colors["values"][number] for number in numbers("H", colors["value"])] == [
        line["variables"]["color"] for line in lines
    ]


def test_a_block_has_labels_maps_and_thumbnails(made: Published, folder: Path) -> None:
    lines = manifest_lines(made.store, made.order.revision)[:64]
    samples = {row.sample.id: row.sample for _, rows in planned_shards(made.order, made.store) for row in rows}

    rows = content_of(folder / "samples" / "00000.js")
    maps = content_of(folder / "maps" / "00000.js")
    raw = zlib.decompress(base64.b64decode(maps["data"]))
    with Image.open(io.BytesIO((folder / "thumbnails" / "00000.jpg").read_bytes())) as file:
        sprite = np.asarray(file.convert("RGB")).astype(int)

    assert len(rows) == len(maps["samples"]) == len(lines) == 64
    assert sprite.shape == (8 * WIDTH, 8 * WIDTH, 3)
    at = 0
    for number, (row, line, head) in enumerate(zip(rows, lines, maps["samples"], strict=True)):
        sample = samples[line["id"]]
        assert (row["id"], row["seed"], row["reason"]) == (line["id"], str(line["seed"]), line["reason"])
        for shown, told in zip(row["instances"], line["instances"], strict=True):
            assert Rle((HEIGHT, WIDTH), shown["segmentation"]).mask().sum() == told["area"]
        assert len(row.get("leftOut", ())) == sum(line["dropped"].values())
        assert (head is None) == (not line["image"]), "without an image there is no map"
        if head is None:
            continue
        evidence = maps_of(sample)
        assert (head["classes"], head["background"]) == (list(evidence.classes), list(evidence.background))
        assert head["size"] == list(MAP)
        assert raw[at : at + evidence.maps.size] == evidence.maps.tobytes()
        at += evidence.maps.size
        x, y = number % 8 * WIDTH, number // 8 * WIDTH
        thumbnail = sprite[y : y + HEIGHT, x : x + WIDTH]
        assert abs(thumbnail - image_of(sample).astype(int)).mean() < 6, "it is that image, as JPEG"
    assert at == len(raw)


def test_a_sample_without_an_image_has_no_thumbnail_and_no_maps(made: Published, folder: Path) -> None:
    rows = [row for file in sorted((folder / "samples").iterdir()) for row in content_of(file)]
    heads = [head for file in sorted((folder / "maps").iterdir()) for head in content_of(file)["samples"]]

    skipped = [(row, head) for row, head in zip(rows, heads, strict=True) if row["reason"] == "SourceRejected"]
    assert skipped
    assert all(not row["thumbnail"] and not row["image"] and head is None for row, head in skipped)


def test_publishing_again_writes_the_same_bytes(tmp_path: Path, made: Published) -> None:
    again = published(tmp_path)

    def files(one: Published) -> dict[str, bytes]:
        folder = one.folder / "report"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}

    different = [name for name, data in files(again).items() if data != files(made)[name]]
    assert [name for name in different if not name.startswith("summary")] == []


def test_a_large_dataset_is_shown_in_part_and_by_whole_families(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "MOST", 48)

    made = published(tmp_path)

    lines = {line["id"]: line for line in manifest_lines(made.store, made.order.revision)}
    summary = content_of(made.folder / "report" / "summary.js")
    shown = set(content_of(made.folder / "report" / "index" / "00000.js")["ids"])
    assert 24 < summary["shown"] == len(shown) < 72
    assert summary["counts"]["samples"] == sum(line["accepted"] for line in lines.values()), "counts are those of all"
    for name, line in lines.items():
        if "source" in line:
            assert (name in shown) == (line["source"] in shown)


@pytest.mark.parametrize("text", ["</script><script>", "it's \\' \\", "\u2028 \u2029 \n", "雪 \ud800"])
def test_a_data_file_is_one_call_whatever_the_text(tmp_path: Path, text: str) -> None:
    written = data_file("index/00000", [text])

    file = tmp_path / "index" / "00000.js"
    file.parent.mkdir()
    file.write_bytes(written)
    assert b"<" not in written
    assert content_of(file) == [text.encode("utf-8", "replace").decode()]


def test_the_page_loads_only_its_own_files() -> None:
    files = page_files()

    html = files["report.html"].decode()
    asked = re.findall(r'(?:src|href)="(?!#)([^"]+)"', html)
    assert sorted(asked) == sorted(f"report/{name}" for name in files if name != "report.html")
    for name, data in files.items():
        text = data.decode()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
    assert "onclick=" not in html
    assert "<script>" not in html
