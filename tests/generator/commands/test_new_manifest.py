"""`diffugen new`: the manifest that it writes is valid, explains its fields, and can be planned unchanged."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from diffugen_api.plan import Expansion
from diffugen_generator.cli import app
from diffugen_generator.commands.manifests import InvalidManifest, read_datasets
from diffugen_generator.commands.new_manifest import BUILTIN_CLASSES, write_manifest
from diffugen_generator.models.resolve import resolve


def written(folder: Path, name: str, *classes: str, model: str = "") -> Path:
    file = folder / f"{name}.yaml"
    write_manifest(name, classes, model=model, file=file)
    return file


def test_a_manifest_of_shapes_uses_the_built_in_model(tmp_path: Path) -> None:
    [dataset] = read_datasets(written(tmp_path, "shapes", "ball", "star"))

    assert [each.name for each in dataset.spec.classes] == ["ball", "star"]
    assert dataset.spec.stages[0].task.model == "builtin://shapes"
    assert (
        Expansion(dataset.spec).count_distinct_samples() == 2 * 3 * 2 * 4
    )  # objects, colors, places, samples per prompt


def test_the_built_in_model_knows_each_class_and_each_value() -> None:
    vocabulary = (resolve("builtin://shapes").path / "tokenizer" / "vocab.json").read_text()
    for word in (*BUILTIN_CLASSES, "red", "green", "blue", "snow", "stone"):
        assert f'"{word}</w>"' in vocabulary


def test_other_classes_need_another_model(tmp_path: Path) -> None:
    [dataset] = read_datasets(written(tmp_path, "cars", "ball", "car=automobile, auto"))

    assert dataset.spec.classes[1].synonyms == ["automobile", "auto"]
    assert str(dataset.spec.stages[0].task.model).startswith("hf://")
    assert dataset.spec.image.width == 512


def test_a_model_that_is_given_is_used(tmp_path: Path) -> None:
    [dataset] = read_datasets(written(tmp_path, "cars", "ball", model="/models/mine"))

    assert dataset.spec.stages[0].task.model == "/models/mine"


@pytest.mark.parametrize("name", ["yes", "12", "no thing", "a-b", "None"])
def test_class_names_that_yaml_reads_as_other_types_stay_strings(tmp_path: Path, name: str) -> None:
    [dataset] = read_datasets(written(tmp_path, "odd", name))

    assert [each.name for each in dataset.spec.classes] == [name]


def test_every_field_has_a_comment_above_it_or_a_plain_name(tmp_path: Path) -> None:
    text = written(tmp_path, "shapes", "ball").read_text()

    for field in ("classes", "image", "seed", "templates", "object", "negative", "model", "threshold", "formats"):
        above = text[: text.index(f"{field}:")].rstrip(" -\n").splitlines()
        assert any("#" in line for line in above[-3:]), field


def test_the_store_in_the_comment_is_valid_after_uncommenting(tmp_path: Path) -> None:
    file = written(tmp_path, "shapes", "ball")
    file.write_text(file.read_text().replace("# s3: ", "s3: "))

    [dataset] = read_datasets(file)

    assert dataset.spec.output.s3 is not None


@pytest.mark.parametrize(
    ("name", "classes", "path"),
    [
        ("Bad_Name", ["ball"], "metadata.name"),
        ("shapes", ["a\x07b"], "spec.classes[0].name"),
        ("shapes", ["ball", "ball"], "spec"),
        ("shapes", [], "spec.classes"),
        ("shapes", ["ball: star\n- x"], "spec.classes[0].name"),
    ],
)
def test_invalid_names_are_refused_and_nothing_is_written(
    tmp_path: Path, name: str, classes: list[str], path: str
) -> None:
    with pytest.raises(InvalidManifest) as refused:
        write_manifest(name, classes, file=tmp_path / "new.yaml")

    assert path in [fault.path for fault in refused.value.faults]
    assert not list(tmp_path.iterdir())


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "shapes.yaml"
    file.write_text("mine")

    ended = CliRunner().invoke(app, ["new", "shapes", "--class", "ball", "--out", str(file)])

    assert ended.exit_code == 64
    assert "it exists; name another file with --out" in ended.stderr
    assert file.read_text() == "mine"


def test_the_command_writes_a_file_named_after_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    ended = CliRunner().invoke(app, ["new", "shapes", "--class", "ball", "--class", "star"])

    assert ended.exit_code == 0, ended.output
    assert yaml.safe_load((tmp_path / "shapes.yaml").read_text())["metadata"] == {"name": "shapes"}
