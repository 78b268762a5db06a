"""`diffugen prompts`, with a tiny language model of random weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_api.words import Vocabulary, mentions
from diffugen_generator.cli import app
from diffugen_generator.commands.prompts import show_written
from diffugen_generator.planning.prompt_rows import read_rows
from diffugen_generator.prompt_writing.replies import NEAR_DUPLICATE, NO_CLASS
from tests.generator.chat_models import TEMPLATE, WORDS, a_chat_model
from tests.generator.made import spec_data

OPTIONS = ["--class=ball", "--class=star", "--count=6", "--max-tokens=12", "--tries=20", "--device=cpu"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return a_chat_model(tmp_path_factory.mktemp("chat"))


def run(model: str, output: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["prompts", "--model", model, "--output", str(output), *OPTIONS, *options])


def written(model: str, output: Path, *options: str) -> dict[str, Any]:
    result = run(model, output, "--json", *options)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_file_is_one_that_a_manifest_can_name(model: str, tmp_path: Path) -> None:
    file = tmp_path / "captions.txt"

    result = written(model, file)

    spec = LabeledDatasetSpec.model_validate(
        spec_data("builtin://shapes", prompts={"file": str(file), "fileSHA256": result["sha256"]})
    )
    prompts = [row.prompt for row in read_rows(spec).read()]
    assert len(prompts) == result["prompts"] == 6
    words = Vocabulary({"ball": ["ball"], "star": ["star"]})
    named = [{mention.name for mention in mentions(prompt, words)} for prompt in prompts]
    assert all(named)
    assert result["classes"] == {name: sum(name in each for each in named) for name in ("ball", "star")}
    assert min(result["classes"].values()) >= 3
    assert file.read_text().startswith(
        f"# written by {model}, digest {result['modelDigest'][:12]}; seed 0, temperature"
    )


def test_the_seed_decides_the_prompts(model: str, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.jsonl" for number in range(3)]
    for file, options in zip(files, ([], [], ["--seed", "1"]), strict=True):
        written(model, file, *options)

    first, again, other = (file.read_bytes() for file in files)
    assert first == again != other
    assert all(list(json.loads(line)) == ["prompt"] for line in first.splitlines())


def test_a_model_without_a_chat_template_gets_an_instruction(tmp_path: Path) -> None:
    model = a_chat_model(tmp_path / "base", template=None)

    assert written(model, tmp_path / "captions.txt")["prompts"] == 6


def test_a_model_that_names_no_class_writes_nothing(tmp_path: Path) -> None:
    model = a_chat_model(tmp_path / "mute", words=tuple(word for word in WORDS if word not in {"ball", "star"}))
    before = set(tmp_path.iterdir())

    result = run(model, tmp_path / "captions.txt", "--tries", "2")

    assert result.exit_code != 0
    assert "replies is a prompt that names 'ball', 'star'" in result.output
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--class", "a=star"], "--class: 'star' already names the class 'star'; remove one of them."),
        (["--class", " "], "--class: ' ' is no class; write NAME, or NAME=WORD,WORD with its synonyms."),
        (["--count", "0"], "--count: 0 is not between 1 and 1,000,000"),
        (["--temperature", "-1"], "--temperature: -1 is not between 0 and 5"),
        (["--max-tokens", "1"], "--max-tokens: 1 is not between 8 and 8,192"),
        (["--dtype", "int8"], "--dtype: 'int8' is none of auto, float32, bfloat16, float16"),
        (["--device", "gpu7"], "--device: there is no device 'gpu7'"),
    ],
)
def test_a_wrong_option_is_named(model: str, tmp_path: Path, options: list[str], says: str) -> None:
    result = run(model, tmp_path / "captions.txt", *options)

    assert result.exit_code != 0
    assert says in result.output
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there.txt").write_text("kept")

    for name, says in (
        ("there.txt", "is there already; remove it, or give another name"),
        ("captions.csv", "ends in neither .txt nor .jsonl"),
        ("none/captions.txt", "there is no folder"),
    ):
        assert says in run("/no/model", tmp_path / name).output
    assert (tmp_path / "there.txt").read_text() == "kept"
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    assert "cannot be written to; name a file in another folder" in run("/no/model", tmp_path / "captions.txt").output


def test_a_folder_that_is_no_language_model_is_refused(tmp_path: Path) -> None:
    assert "there is no folder" in run(str(tmp_path / "none"), tmp_path / "captions.txt").output
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in run(str(tmp_path / "empty"), tmp_path / "captions.txt").output
    broken = Path(a_chat_model(tmp_path / "broken", template=TEMPLATE.replace("messages", "messages[9].x.y")))
    assert "its chat template fails" in run(str(broken), tmp_path / "captions.txt").output
    assert not (tmp_path / "captions.txt").exists()


def test_the_result_is_printed(model: str, tmp_path: Path) -> None:
    file = tmp_path / "captions.txt"

    output = run(model, file).output

    assert "6 prompts (ball " in output
    assert hashlib.sha256(file.read_bytes()).hexdigest() in output


@pytest.mark.parametrize(
    ("rejected", "says"),
    [
        ({NEAR_DUPLICATE: 3, NO_CLASS: 2}, "the model repeats itself; more --tries, a higher --temperature"),
        ({NEAR_DUPLICATE: 1, NO_CLASS: 20}, "the model seldom does what it is asked; more --tries, a lower --temp"),
    ],
)
def test_the_cause_of_missing_prompts_is_told(rejected: dict[str, int], says: str) -> None:
    console = Console(record=True, width=200)
    counts = {"prompts": 5, "asked": 8, "classes": {"car": 5}, "replies": 26, "rejected": rejected}

    show_written(console, {**counts, "output": "captions.txt", "sha256": "0" * 64})

    assert f"3 fewer than asked for: {says}" in console.export_text()
