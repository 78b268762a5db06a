"""The wheels in empty environments: with only the wheels and the package index, the commands work."""

import json
import zipfile
from pathlib import Path

import pytest

from tests.packaging.wheels import MEMBERS, ROOT, build, install, run_installed

EXAMPLE = str(ROOT / "examples" / "shapes.yaml")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    for member in MEMBERS.values():
        build(member, "wheel", folder)
    return folder


@pytest.fixture(scope="module")
def light(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with only `diffugen`."""
    venv = tmp_path_factory.mktemp("light") / "venv"
    install(venv, wheels, "diffugen")
    return venv


def test_diffugen_alone_writes_validates_and_plans(light: Path, tmp_path: Path) -> None:
    for command in (
        ["diffugen", "--version"],
        ["diffugen", "new", "shapes", "--class", "ball", "--class", "star"],
        ["diffugen", "validate", "shapes.yaml"],
        ["diffugen", "plan", "shapes.yaml"],
        ["diffugen", "plan", EXAMPLE],
    ):
        ended = run_installed(light, *command, folder=tmp_path)
        assert ended.returncode == 0, ended.stderr


def test_diffugen_alone_has_neither_torch_nor_kubernetes(light: Path, tmp_path: Path) -> None:
    found = run_installed(
        light,
        "python",
        "-c",
        "from importlib.util import find_spec\n"
        "print([m for m in ('torch', 'kubernetes', 'kopf', 'ultralytics', 'diffugen_operator') if find_spec(m)])",
        folder=tmp_path,
    )
    assert found.stdout.strip() == "[]"


def test_a_run_without_the_models_extra_names_it(light: Path, tmp_path: Path) -> None:
    ended = run_installed(light, "diffugen", "run", EXAMPLE, "--store", "out", folder=tmp_path)

    assert ended.returncode == 64
    assert "diffusers is not installed; install the extra: pip install 'diffugen[models]'" in ended.stderr


def test_the_wheel_has_the_page_of_the_report(wheels: Path) -> None:
    (wheel,) = wheels.glob("diffugen-*.whl")

    page = "diffugen_generator/publishing/report/page/"
    packed = {name.removeprefix(page) for name in zipfile.ZipFile(wheel).namelist() if name.startswith(page)}
    assert packed == {file.name for file in (ROOT / "generator" / "src" / page).iterdir()}
    assert {"report.html", "report.css", "main.js"} <= packed


def test_the_operator_does_not_need_the_generator(wheels: Path, tmp_path: Path) -> None:
    install(tmp_path / "venv", wheels, "diffugen-operator")

    assert run_installed(tmp_path / "venv", "diffugen-operator", "--help", folder=tmp_path).returncode == 0
    assert not (tmp_path / "venv" / "bin" / "diffugen").exists()


def test_with_the_models_the_first_example_is_drawn(wheels: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    install(venv, wheels, "diffugen[models,formats]")

    ended = run_installed(venv, "diffugen", "run", EXAMPLE, "--store", "out", "--json", folder=tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["published"]["samples"] == 96
    [published] = (tmp_path / "out").rglob("dataset.json")
    assert json.loads(published.read_text())["samples"] == 96
