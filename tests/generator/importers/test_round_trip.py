"""An imported manifest validates, plans and, with the models replaced by the built-in ones, runs."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.generator.importers.configs import SUPERVISED, UNSUPERVISED, a_checkout, changed
from tests.generator.test_cli import diffugen, imported_by

SHAPES: dict[str, Any] = changed(
    UNSUPERVISED,
    {
        "dataset_name": "shapes",
        "dataset_classes": ["ball", "square"],
        "image_size": {"width": 64, "height": 64},
        "steps": 4,
        "txt2img.object_names": ["ball", "square"],
        "txt2img.seed_count_per_prompt": 1,
        "txt2img.prompts": ["a {object_name}++ on snow, {time_of_day}"],
        "img2img": {
            "source_dataset": "drawn/shapes/txt2img",
            "times_of_day": ["night"],
            "sky_conditions": ["blue"],
            "weather_conditions": ["sunny"],
        },
        "inpaint": {"source_dataset": "drawn/shapes/txt2img", "ball": ["red ball"]},
    },
)


def test_a_manifest_validates_and_plans(tmp_path: Path) -> None:
    (a_checkout(tmp_path) / "boats.json").write_text(json.dumps(SUPERVISED))
    manifest = tmp_path / "boats.yaml"

    made = diffugen("import", tmp_path / "boats.json", "--root", tmp_path, "--output", manifest)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    validated = diffugen("validate", manifest)
    assert "boats: valid, 3,744 samples" in validated.stdout


def test_a_manifest_runs_with_the_builtin_model(tmp_path: Path) -> None:
    (tmp_path / "shapes.json").write_text(json.dumps(SHAPES))
    made = diffugen("import", tmp_path / "shapes.json", "--model", "builtin://shapes")
    assert made.returncode == 0, made.stderr
    (tmp_path / "shapes.yaml").write_text(made.stdout)

    planned = diffugen("plan", tmp_path / "shapes.yaml", "--json")
    assert [stage["total"] for stage in json.loads(planned.stdout)["stages"]] == [2, 2, 1]
    ran = diffugen("run", tmp_path / "shapes.yaml", "--store", tmp_path / "store", "--json")
    assert ran.returncode == 0, ran.stderr
    assert [stage["samples"] for stage in json.loads(ran.stdout)["stages"]] == [2, 2, 1]
    assert json.loads(ran.stdout)["drawn"] == 5


def test_a_broken_file_gives_the_exit_code_of_a_bad_spec(tmp_path: Path) -> None:
    (tmp_path / "shapes.json").write_text(json.dumps(changed(SHAPES, {"steps": ...})))

    ended = diffugen("import", tmp_path / "shapes.json", "--model", "builtin://shapes")

    assert ended.returncode == 64
    assert "steps: it is missing; write the number of sampling steps" in ended.stderr


def test_an_unknown_syntax_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shapes.json").write_text(json.dumps(SHAPES))

    ended = diffugen("import", tmp_path / "shapes.json", "--syntax", "compel")

    assert ended.returncode == 64
    assert "--syntax: 'compel' is neither auto nor none" in ended.stderr


def test_import_loads_no_model(tmp_path: Path) -> None:
    (tmp_path / "shapes.json").write_text(json.dumps(SHAPES))
    arguments = ("import", tmp_path / "shapes.json", "--model", "builtin://shapes", "-o", tmp_path / "shapes.yaml")

    assert imported_by(*arguments) == set()
    assert yaml.safe_load((tmp_path / "shapes.yaml").read_text())["metadata"]["name"] == "shapes"
