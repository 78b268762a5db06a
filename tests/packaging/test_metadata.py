"""The metadata of the distributions on an index, and the content of their files."""

import ast
import hashlib
import importlib.metadata
import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from version import version

import diffugen_operator
from tests.packaging.wheels import MEMBERS, ROOT, build, metadata_of, project_of

PACKAGES = {"diffugen-api": "diffugen_api", "diffugen-operator": "diffugen_operator", "diffugen": "diffugen_generator"}


@pytest.fixture(scope="module", params=MEMBERS)
def distribution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def wheel(distribution: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(MEMBERS[distribution], "wheel", tmp_path_factory.mktemp("dist"))


def test_all_have_the_version_of_the_checkout_and_require_each_other_at_it(tmp_path: Path) -> None:
    asked = {}
    for name, folder in MEMBERS.items():
        metadata = metadata_of(build(folder, "wheel", tmp_path, DIFFUGEN_VERSION="3.1.4"))
        assert metadata["Version"] == "3.1.4"
        asked[name] = metadata.get_all("Requires-Dist", [])

    assert "diffugen-api==3.1.4" in asked["diffugen"]
    assert "diffugen-api==3.1.4" in asked["diffugen-operator"]
    assert not [each for each in asked["diffugen-api"] if each.startswith("diffugen")]
    assert metadata_of(build("crds", "wheel", tmp_path / "own"))["Version"] == version()


def test_the_installed_operator_reads_its_own_version() -> None:
    assert diffugen_operator.__version__ == importlib.metadata.version("diffugen-operator")


def test_the_check_of_the_light_image_knows_the_packages_that_only_the_other_image_has() -> None:
    check = ast.parse((ROOT / "images" / "generator" / "check.py").read_text())
    (elsewhere,) = (
        ast.literal_eval(each.value)
        for each in check.body
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "ELSEWHERE"
    )
    extras = project_of("generator")["optional-dependencies"]
    names = {re.split(r"[<>=]", each)[0] for extra in ("models", "yolo") for each in extras[extra]}

    assert names <= elsewhere


def test_a_wheel_has_complete_metadata(distribution: str, wheel: Path) -> None:
    metadata = metadata_of(wheel)

    assert metadata["Name"] == distribution
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    assert f"pip install {distribution}" in str(metadata.get_payload()).replace("'", "")


def test_links_of_a_readme_work_outside_of_the_checkout(distribution: str) -> None:
    text = (ROOT / MEMBERS[distribution] / "README.md").read_text()

    assert [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("https://")] == []


def test_a_wheel_has_its_types_its_license_and_nothing_else(distribution: str, wheel: Path) -> None:
    package = PACKAGES[distribution]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [license_file] = [name for name in names if name.endswith("licenses/LICENSE")]
        assert archive.read(license_file) == (ROOT / "LICENSE").read_bytes()

    assert f"{package}/py.typed" in names
    assert {name.split("/")[0].partition("-")[0] for name in names} == {package, distribution.replace("-", "_")}


def test_the_weights_of_the_built_in_models_are_in_the_wheel(tmp_path: Path) -> None:
    folder = ROOT / "generator" / "src"
    models = folder / "diffugen_generator" / "builtin"
    with zipfile.ZipFile(build("generator", "wheel", tmp_path)) as archive:
        for weights in models.rglob("*.safetensors"):
            packed = archive.read(str(weights.relative_to(folder)))
            assert hashlib.sha256(packed).digest() == hashlib.sha256(weights.read_bytes()).digest()


def test_a_wheel_is_built_the_same_twice_and_from_the_source_distribution_too(
    distribution: str, wheel: Path, tmp_path: Path
) -> None:
    again = build(MEMBERS[distribution], "wheel", tmp_path / "again")
    assert again.read_bytes() == wheel.read_bytes()

    source = build(MEMBERS[distribution], "sdist", tmp_path / "source")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / source.name.removesuffix(".tar.gz")
    assert build(str(unpacked), "wheel", tmp_path / "third").read_bytes() == wheel.read_bytes()
