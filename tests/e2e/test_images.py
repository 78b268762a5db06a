"""The images alone: small, without unneeded parts, rootless, with a list of components, and equal when built again."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.images import base, buildah, built, configuration, environment

MEGABYTE = 1_000_000


def layers(name: str) -> list[str]:
    found: list[str] = configuration(name)["rootfs"]["diff_ids"]
    return found


def size_over_base(name: str) -> float:
    """The size over the base in megabytes, unpacked."""
    return (_size(name) - _size(base())) / MEGABYTE


def _size(name: str) -> int:
    container = buildah("from", "--pull-never", name)
    try:
        counted = subprocess.run(
            ["du", "-sb", buildah("mount", container)], env=environment(), check=True, capture_output=True, text=True
        )
        return int(counted.stdout.split()[0])
    finally:
        buildah("rm", container)


def run_in(name: str, *command: str) -> str:
    """Run a command in the image as its own user."""
    container = buildah("from", "--pull-never", name)
    try:
        return buildah("run", "--runtime", "runc", "--isolation", "oci", "--network", "none", container, "--", *command)
    finally:
        buildah("rm", container)


@pytest.mark.parametrize("image", ["operator", "light"])
def test_images_without_models_have_no_torch_and_no_root(image: str) -> None:
    name = built(image)

    assert configuration(name)["config"]["User"] == "65532:65532"
    script = "import importlib.util as u; print([m for m in ('torch', 'pip', 'uv', 'hatchling') if u.find_spec(m)])"
    assert run_in(name, "python", "-c", script) == "[]"


@pytest.mark.parametrize(("image", "most"), [("operator", 150), ("light", 550)])
def test_the_size_over_the_base(image: str, most: int) -> None:
    assert size_over_base(built(image)) < most


@pytest.mark.parametrize(
    ("image", "program", "own"),
    [("operator", "diffugen-operator", "diffugen-operator"), ("light", "diffugen", "diffugen")],
)
def test_its_program_is_on_the_path_and_its_components_are_listed(image: str, program: str, own: str) -> None:
    name = built(image)

    assert run_in(name, program, "--version")
    listed = json.loads(run_in(name, "cat", "/usr/share/diffugen/sbom.cdx.json"))
    assert listed["bomFormat"] == "CycloneDX"
    assert listed["metadata"]["component"]["name"] == own
    script = "from importlib.metadata import distributions; print(*{each.name for each in distributions()})"
    installed = run_in(name, "python", "-c", script).split()
    components = [each["name"] for each in listed["components"]]
    assert {_normal(each) for each in installed} == {_normal(each) for each in (*components, own)}


def _normal(name: str) -> str:
    """A distribution's name, normalized as package indexes do."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_labels_of_the_open_container_initiative() -> None:
    labels = configuration(built("operator"))["config"]["Labels"]

    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}title"] == "diffugen-operator"
    assert labels[f"{prefix}licenses"] == "Apache-2.0"
    assert {f"{prefix}{name}" for name in ("version", "revision", "source", "description")} <= set(labels)


@pytest.mark.parametrize("image", ["operator", "light"])
def test_two_builds_give_equal_layers(image: str, tmp_path: Path) -> None:
    first = layers(built(image))
    again = subprocess.run(
        ["images/build.sh", image],
        cwd=Path(__file__).parents[2],
        env={**environment(), "IMAGE_TAG": "again", "NO_CACHE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr[-2000:]
    name = built(image).replace(":e2e", ":again")
    try:
        assert layers(name)[-1] == first[-1]  # our own code
    finally:
        buildah("rmi", name)
