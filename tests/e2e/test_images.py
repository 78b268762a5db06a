"""The images alone: small, without unneeded parts, rootless, with a list of components, and equal when built again."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import get_args

import pytest

from diffugen_api.contract import Step
from diffugen_api.v1alpha1.output import Format
from diffugen_generator.store.opening import open_folder
from diffugen_generator.worker import work
from tests.e2e.images import base, buildah, built, configuration, environment
from tests.generator.made import a_finished_store, a_model, an_order, everything_in

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


def run_in(name: str, *command: str, volume: str = "") -> str:
    """Run a command in the image as its own user, with a folder as a volume where one is named, as HERE:THERE."""
    container = buildah("from", "--pull-never", name)
    flags = ["--runtime", "runc", "--isolation", "oci", "--network", "none", *(["--volume", volume] if volume else [])]
    try:
        return buildah("run", *flags, container, "--", *command)
    finally:
        buildah("rm", container)


@pytest.mark.parametrize("image", ["operator", "light", "models"])
def test_images_do_not_run_as_root(image: str) -> None:
    assert configuration(built(image))["config"]["User"] == "65532:65532"


@pytest.mark.parametrize("image", ["operator", "light"])
def test_images_without_models_have_no_torch_and_no_tools(image: str) -> None:
    name = built(image)

    script = "import importlib.util as u; print([m for m in ('torch', 'pip', 'uv', 'hatchling') if u.find_spec(m)])"
    assert run_in(name, "python", "-c", script) == "[]"


@pytest.mark.parametrize(("image", "most"), [("operator", 150), ("light", 250)])
def test_the_size_over_the_base(image: str, most: int) -> None:
    assert size_over_base(built(image)) < most


def test_the_light_image_plans_publishes_and_deletes_as_an_installation_does(tmp_path: Path) -> None:
    """Its OpenCV and its Arrow are smaller than the index's; what it publishes has the same bytes."""
    order = an_order(
        a_model(tmp_path / "model"), output={"formats": list(get_args(Format)), "splits": {"train": 0.8, "val": 0.2}}
    )
    installed, in_image = tmp_path / "installed", tmp_path / "image"
    a_finished_store(order, open_folder(installed, order.namespace, order.name).root)
    shutil.copytree(installed, in_image)
    (tmp_path / "order.json").write_text(order.dumps())
    subprocess.run(["chmod", "-R", "a+rwX", tmp_path], check=True)
    name = built("light")

    for step in (Step.PLAN, Step.PUBLISH):
        assert work(step, order_file=tmp_path / "order.json", folder=installed, environ={}) == 0
        run_in(name, *worker(step, tmp_path), volume=f"{tmp_path}:{tmp_path}")

    published = everything_in(in_image)
    assert {path.split("/")[-1] for path in published} > {"dataset.json", "current.json"}
    expected = everything_in(installed)
    pointer = next(path for path in published if path.endswith("/current.json"))
    times = [json.loads(files.pop(pointer)) for files in (published, expected)]  # the one file that says when
    assert times[0]["revision"] == times[1]["revision"]
    assert published == expected
    run_in(name, *worker(Step.DELETE, tmp_path), volume=f"{tmp_path}:{tmp_path}")
    assert everything_in(in_image) == {}


def worker(step: Step, folder: Path) -> list[str]:
    """The command of a step on the store `folder`/image."""
    return ["diffugen", "worker", step.value, "--order", f"{folder}/order.json", "--store", f"{folder}/image"]


@pytest.mark.parametrize(
    ("image", "program", "own"),
    [
        ("operator", "diffugen-operator", "diffugen-operator"),
        ("light", "diffugen", "diffugen"),
        ("models", "diffugen", "diffugen"),
    ],
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


@pytest.mark.parametrize("image", ["operator", "light", "models"])
def test_two_builds_give_equal_layers(image: str, tmp_path: Path) -> None:
    first = layers(built(image))
    again = subprocess.run(
        ["images/build.sh", image],
        cwd=Path(__file__).parents[2],
        env={**environment(), "IMAGE_TAG": "again", "REBUILD": str(time.time())},
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
