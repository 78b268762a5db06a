"""`diffugen` as users run it: in a separate process, tested by its output and its exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.generator.made import a_finished_store, a_model, an_order, spec_data

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "shapes.yaml"

HEAVY = ("torch", "diffusers", "transformers", "cv2", "minio", "pycocotools")


def diffugen(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "diffugen_generator", *map(str, arguments)],
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def imported_by(*arguments: str | Path) -> set[str]:
    """Return the heavy modules that a command has imported when it ends."""
    script = (
        "import os, sys\n"
        "os._exit = sys.exit\n"  # workers exit without the interpreter's cleanup
        "from diffugen_generator.cli import main\n"
        "try: main()\n"
        "finally: print('IMPORTED', *sorted(set(sys.modules) & set(sys.argv[0].split(','))), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", f"import sys; sys.argv[0] = {','.join(HEAVY)!r}\n{script}"]
    ended = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    line = next(line for line in ended.stderr.splitlines() if line.startswith("IMPORTED"))
    return set(line.split()[1:])


def a_manifest(folder: Path, model: str, **changes: Any) -> Path:
    document = {
        "apiVersion": "diffugen.dev/v1alpha1",
        "kind": "LabeledDataset",
        "metadata": {"name": "shapes", "namespace": "vision"},
        "spec": spec_data(model, **changes),
    }
    file = folder / "manifest.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


# --- commands that start fast and never load a model ---


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["validate", EXAMPLE], set()),
        (["plan", EXAMPLE], set()),
        (["run", "--help"], set()),
    ],
)
def test_read_only_commands_import_no_heavy_module(arguments: list[str], allowed: set[str]) -> None:
    assert imported_by(*arguments) <= allowed


def test_plan_and_publish_steps_never_import_torch(tmp_path: Path) -> None:
    order = an_order(a_model(tmp_path / "model"))
    a_finished_store(order, tmp_path / "datasets" / "vision" / "shapes")
    (tmp_path / "order.json").write_text(order.dumps())
    common = ("--order", tmp_path / "order.json", "--store", tmp_path / "datasets")

    assert imported_by("worker", "plan", *common) <= {"pycocotools"}  # it reads stored labels
    assert imported_by("worker", "publish", *common) <= {"cv2", "pycocotools"}


# --- output that cannot be written ---


def test_a_full_disk_is_an_error_although_all_else_succeeded() -> None:
    command = [sys.executable, "-m", "diffugen_generator", "validate", str(EXAMPLE), "--json"]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environ, check=False)

    assert (ended.returncode, ended.stderr) == (75, "✘ the output could not be written: No space left on device\n")


@pytest.mark.parametrize(
    ("arguments", "code"), [("--version >&-", 0), ("validate {example} --json >&-", 0), ("validate /nope 2>&-", 64)]
)
def test_a_closed_stream_changes_no_exit_code(arguments: str, code: int) -> None:
    command = f"exec {sys.executable} -m diffugen_generator {arguments.format(example=EXAMPLE)}"

    ended = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)

    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False)


# --- validate ---


def test_validate_accepts_a_valid_manifest() -> None:
    ended = diffugen("validate", EXAMPLE)

    assert (ended.returncode, ended.stdout) == (0, "✔ shapes: valid, 96 samples\n")


def test_validate_names_every_fault(tmp_path: Path) -> None:
    file = a_manifest(tmp_path, "builtin://shapes", image={"width": 100, "heigth": 64}, seed=-1)

    ended = diffugen("validate", file)

    assert ended.returncode == 64
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        f"✘ {file}: 3 faults",
        "  spec.image.width: 100 is not a whole number from 64 to 2048 that is a multiple of 8: write 96 or 104",
        "  spec.image.heigth: there is no such field: did you mean 'height'?",
        "  spec.seed: -1 is not a whole number from 0 to 9007199254740991: write 0 or more",
    ]


def test_validate_refuses_more_samples_than_a_plan_accepts(tmp_path: Path) -> None:
    variables = {"n": [str(number) for number in range(60)]}
    prompts = {"templates": ["a ball {n}"], "variables": variables, "samplesPerPrompt": 100_000}

    ended = diffugen("validate", a_manifest(tmp_path, "builtin://shapes", prompts=prompts))

    assert (ended.returncode, ended.stdout) == (64, "")
    assert ended.stderr == (
        "✘ spec.prompts: templates, variables and samplesPerPrompt ask for 6,000,000 images a stage; the limit "
        "is 5,000,000: ask for fewer or split the dataset.\n"
    )


def test_validate_counts_equal_prompts_once(tmp_path: Path) -> None:
    classes = [{"name": "ball"}]
    file = a_manifest(tmp_path, "builtin://shapes", classes=classes, prompts={"templates": ["a ball", "a ball"]})

    assert diffugen("validate", file).stdout == "✔ shapes: valid, 1 sample\n"
    assert json.loads(diffugen("validate", file, "--json").stdout) == {
        "namespace": "vision", "name": "shapes", "valid": True, "samples": 1
    }  # fmt: skip


def test_validate_warns_about_background_words_without_effect(tmp_path: Path) -> None:
    labeling = {"attention": {"background": ["sky", "snow", "road"]}}
    file = a_manifest(tmp_path, "builtin://shapes", labeling=labeling)
    warning = (
        "spec.labeling.attention.background: no prompt names sky, road; a background word competes for pixels only in "
        "images whose prompt names it."
    )

    assert diffugen("validate", file).stdout.splitlines() == ["✔ shapes: valid, 16 samples", f"! {warning}"]
    assert diffugen("plan", file).stdout.splitlines()[-1] == f"! {warning}"
    for command in ("validate", "plan"):
        assert json.loads(diffugen(command, file, "--json").stdout)["warnings"] == [warning]


def test_strict_makes_warnings_faults(tmp_path: Path) -> None:
    variables = {"object": ["ball"], "place": ["snow"]}
    prompts = {"templates": ["a {object}"], "variables": variables}
    file = a_manifest(tmp_path, "builtin://shapes", classes=[{"name": "ball"}], prompts=prompts)
    field = "spec.prompts.variables.place"

    for command in ("validate", "plan", "run"):
        options = ("--store", str(tmp_path / "store")) if command == "run" else ()
        refused = diffugen(command, file, *options, "--strict", "--json")
        assert refused.returncode == 64
        report = json.loads(refused.stdout)
        assert [fault["path"] for fault in report["faults"]] == [field]
        assert report["faults"][0]["message"].startswith("no template has the field {place}")
        assert field in refused.stderr
    assert not (tmp_path / "store").exists()
    assert diffugen("validate", file).returncode == 0
    del variables["place"]
    file = a_manifest(tmp_path, "builtin://shapes", classes=[{"name": "ball"}], prompts=prompts)
    assert diffugen("validate", file, "--strict").stdout == "✔ shapes: valid, 1 sample\n"


def test_faults_are_printed_as_json(tmp_path: Path) -> None:
    ended = diffugen("validate", a_manifest(tmp_path, "builtin://shapes", seed=-1), "--json")

    assert ended.returncode == 64
    told = json.loads(ended.stdout)
    message = "-1 is not a whole number from 0 to 9007199254740991: write 0 or more"
    assert told["reason"] == "InvalidSpec"
    assert told["faults"] == [{"path": "spec.seed", "message": message}]


def test_brackets_in_paths_are_shown(tmp_path: Path) -> None:
    ended = diffugen("validate", a_manifest(tmp_path, "builtin://cars"))

    assert "spec.stages[0].txt2img.model: no model is built in as 'cars'" in ended.stderr


# --- plan ---


def test_plan_shows_stages_counts_and_prompts() -> None:
    ended = diffugen("plan", EXAMPLE)

    assert ended.returncode == 0, ended.stderr
    [head, row] = [line.split() for line in ended.stdout.splitlines() if line.startswith(("stage", "base"))]
    assert head == ["stage", "kind", "model", "samples", "reused", "to", "draw", "to", "relabel", "shards"]
    assert row == ["base", "txt2img", "builtin://shapes", "96", "-", "96", "-", "6"]
    assert (
        "no store was checked, so every sample counts as missing; --store DIR or s3://BUCKET/PREFIX counts"
        in ended.stdout
    )
    assert "  a yellow square and a red ball on snow" in ended.stdout.splitlines()


def test_plan_counts_what_a_store_holds(tmp_path: Path) -> None:
    model = a_model(tmp_path / "model")
    a_finished_store(an_order(model), tmp_path / "datasets" / "vision" / "shapes")
    prompts = spec_data(model)["prompts"]
    prompts["variables"]["color"].append("green")
    file = a_manifest(tmp_path, model, prompts=prompts)

    ended = diffugen("plan", file, "--store", tmp_path / "datasets", "--json")

    assert ended.returncode == 0, ended.stderr
    shown = json.loads(ended.stdout)
    assert shown["stages"] == [
        {"name": "base", "total": 24, "reused": 16, "skipped": 0, "draw": 8, "relabel": 0, "shards": 1, "gpu": True}
    ]
    assert shown["prompts"] == ["a red ball on snow"]

    ended = diffugen("plan", file, "--store", tmp_path / "datasets")
    row = next(line.split() for line in ended.stdout.splitlines() if line.startswith("base"))
    assert row[3:] == ["24", "16", "8", "0", "1"]
    assert "no store" not in ended.stdout


def test_a_table_in_a_pipe_is_not_narrowed(tmp_path: Path) -> None:
    folder = a_model(tmp_path / ("a-model-of-a-very-long-name" * 4))
    environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "diffugen_generator", "plan", str(a_manifest(tmp_path, folder))]

    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    assert f" {folder} " in ended.stdout


def test_the_usage_has_file_in_capitals() -> None:
    usage, *_ = diffugen("validate", "--help").stdout.splitlines()

    assert "FILE" in usage
    assert "file" not in usage


# --- run ---


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """A small dataset, drawn by the built-in model: the manifest, the store and the output of the run."""
    folder = tmp_path_factory.mktemp("run")
    file = a_manifest(
        folder,
        "builtin://shapes",
        prompts={"templates": ["a red ball on snow", "a blue star on sand"], "samplesPerPrompt": 2},
        stages=[{"name": "base", "txt2img": {"model": "builtin://shapes", "steps": 4, "guidanceScale": 3}}],
        quality={"minInstances": 0},
        output={"splits": {"train": 1}},
        run={"samplesPerShard": 3},
    )
    return file, folder / "datasets", diffugen("run", file, "--store", folder / "datasets")


def test_run_prints_the_results_and_their_location(ran: Any) -> None:
    _, datasets, ended = ran

    assert ended.returncode == 0, ended.stderr
    row = next(line.split() for line in ended.stdout.splitlines() if line.startswith("base"))
    assert row[:5] == ["base", "4", "0", "4", "4"]
    assert "4 images (train 4), 0 rejected" in ended.stdout
    sheet = next(line.split()[-1] for line in ended.stdout.splitlines() if line.startswith("contact sheet"))
    assert Path(sheet).read_bytes().startswith(b"\x89PNG")
    assert sheet.startswith(str(datasets / "vision" / "shapes" / "revisions"))
    report = next(line.split()[-1] for line in ended.stdout.splitlines() if line.startswith("report"))
    assert Path(report).read_text().startswith("<!doctype html>")
    assert "planning (samples): 4/4 (100 %)" in ended.stderr
    assert "stage base (images): 4/4 (100 %)" in ended.stderr
    assert ended.stderr.count("stage base (images): loading the model\n") == 1
    assert "publishing (samples): 4/4 (100 %)" in ended.stderr


def test_a_second_run_draws_nothing(ran: Any) -> None:
    file, datasets, _ = ran

    ended = diffugen("run", file, "--store", datasets, "--json")

    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result["drawn"] == 0
    assert result["stages"][0]["reused"] == 4
    assert result["published"]["samples"] == 4
    assert Path(result["contactSheet"]).exists()
    assert Path(result["report"]).exists()
    assert result["splits"] == {"train": 4}


def test_a_new_threshold_draws_nothing(ran: Any, tmp_path: Path) -> None:
    file, datasets, _ = ran
    document = yaml.safe_load(file.read_text())
    document["spec"]["labeling"] = {"attention": {"threshold": 0.6}}
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(document))

    ended = diffugen("run", tmp_path / "edited.yaml", "--store", datasets, "--json")

    assert ended.returncode == 0, ended.stderr
    [stage] = json.loads(ended.stdout)["stages"]
    assert (stage["drawn"], stage["labelled"]) == (0, 4)


# --- worker ---


def test_a_worker_exits_right_after_its_termination_message(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text(an_order(a_model(tmp_path / "model")).dumps())
    script = "import atexit, time; atexit.register(time.sleep, 60); from diffugen_generator.cli import main; main()"
    arguments = ("worker", "plan", "--order", tmp_path / "order.json", "--store", tmp_path / "datasets")

    ended = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "DIFFUGEN_TERMINATION_LOG": str(tmp_path / "word")},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )

    assert ended.returncode == 0
    assert "Planned: 16 samples" in ended.stderr
    assert json.loads((tmp_path / "word").read_text())["ok"]


# --- failures ---


def test_without_a_store_there_is_an_error(tmp_path: Path) -> None:
    ended = diffugen("run", a_manifest(tmp_path, a_model(tmp_path / "model")), "--json")

    assert ended.returncode == 64
    assert ended.stderr.splitlines()[-1].startswith(
        "✘ spec.output.s3: no store is given to publish to; set endpoint and bucket"
    )
    assert json.loads(ended.stdout)["reason"] == "NoStore"
    assert "Traceback" not in ended.stderr


def test_an_unreachable_store_is_a_temporary_failure(tmp_path: Path) -> None:
    output = {"s3": {"endpoint": "http://127.0.0.1:9", "bucket": "data"}}
    file = a_manifest(tmp_path, a_model(tmp_path / "model"), output=output)

    ended = diffugen("run", file, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")

    assert ended.returncode == 75
    assert "✘ spec.output.s3.endpoint: http://127.0.0.1:9 refuses connections" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_store_can_be_a_bucket(tmp_path: Path, command: str) -> None:
    """A folder called `s3:` would be wrong."""
    file = a_manifest(tmp_path, a_model(tmp_path / "model"))
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}

    ended = diffugen(command, file, "--store", "s3://data/mine", "--endpoint", "http://127.0.0.1:9", **keys)
    nowhere = diffugen(command, file, "--store", "s3://data/mine")
    unknown = diffugen(command, file, "--store", "gs://data/mine")

    assert (ended.returncode, nowhere.returncode, unknown.returncode) == (75, 64, 64)
    assert "http://127.0.0.1:9 refuses connections" in ended.stderr
    assert "s3://data/mine: say where the store is: --endpoint, or AWS_ENDPOINT_URL." in nowhere.stderr
    assert "--store: 'gs://data/mine' is neither a folder nor s3://BUCKET/PREFIX." in unknown.stderr
    assert not Path("s3:").exists()


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    ended = diffugen("run", a_manifest(tmp_path, a_model(tmp_path / "model")), "--store", "/proc/diffugen")

    assert ended.returncode in {75, 77}
    assert ended.stderr.splitlines()[-1].startswith("✘ the store /proc/diffugen/vision/shapes")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    ended = diffugen("run", a_manifest(tmp_path, a_model(tmp_path / "model")), "--debug")

    assert "Traceback" in ended.stderr


def test_version() -> None:
    ended = diffugen("--version")

    assert (ended.returncode, ended.stdout.split()[0]) == (0, "diffugen")
