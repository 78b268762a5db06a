"""What the images install: the versions and hashes of the workspace's lock, and no forbidden package."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.packaging.wheels import LOCK, ROOT, dependencies_of

IMAGES = ROOT / "images"
LOCKS = [IMAGES / "operator" / "requirements.lock", *sorted((IMAGES / "generator").glob("*.lock"))]


def pins(lock: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Return the version and hashes of each name."""
    found = {}
    for block in re.split(r"\n(?=[a-z0-9])", lock.read_text()):
        if match := re.match(r"([a-z0-9][a-z0-9._-]*)==(\S+)", block):
            found[match[1]] = (match[2], frozenset(re.findall(r"--hash=(\S+)", block)))
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_an_images_lock_is_part_of_the_workspaces(lock: Path) -> None:
    """`make lock` writes both; this fails if it was not run."""
    all_of_them = pins(LOCK)
    for name, (version, hashes) in pins(lock).items():
        if name == "opencv-python":  # pinned for no platform at all
            continue
        assert all_of_them.get(name, ("", frozenset()))[0] == version, name
        assert hashes
        assert hashes == all_of_them[name][1], name


@pytest.mark.parametrize(
    ("lock", "absent", "present"),
    [
        ("operator/requirements.lock", {"torch", "minio", "numpy"}, {"kopf", "pydantic"}),
        ("generator/light.lock", {"torch", "kopf", "kubernetes", "ultralytics"}, {"minio", "pycocotools"}),
        ("generator/models.lock", {"kopf", "kubernetes", "ultralytics"}, {"torch", "diffusers", "pyarrow"}),
        ("generator/models-yolo.lock", {"kopf", "kubernetes"}, {"torch", "ultralytics"}),
    ],
)
def test_a_target_has_its_needed_packages(lock: str, absent: set[str], present: set[str]) -> None:
    names = set(pins(IMAGES / lock))
    assert present <= names
    assert not absent & names


def test_the_dependencies_of_a_distribution_are_in_its_images_lock() -> None:
    """This fails if a dependency was added without `make lock`."""
    for folder, lock in (("operator", "operator/requirements.lock"), ("generator", "generator/light.lock")):
        names = {re.split(r"[^a-zA-Z0-9._-]", each)[0] for each in dependencies_of(folder)} - {"diffugen-api"}
        assert names <= set(pins(IMAGES / lock)), lock


def test_the_build_files_contain_nothing_of_one_machine() -> None:
    """Indexes and certificates are passed as build secrets."""
    for file in IMAGES.rglob("*"):
        if file.is_file() and file.suffix != ".lock":
            assert not re.search(r"index-url = |extra-index|PIP_INDEX_URL=", file.read_text()), file


def test_without_cuda_only_torch_and_the_cuda_packages_are_left_out() -> None:
    """The filter of images/environment, which TORCH_INDEX turns on."""
    script = (IMAGES / "environment").read_text()
    [program] = re.findall(r"awk '([^']+)' \"\$lock\"", script)
    lock = IMAGES / "generator" / "models.lock"
    kept = subprocess.run(["awk", program, lock], check=True, capture_output=True, text=True).stdout

    gone = set(pins(lock)) - {match[1] for match in re.finditer(r"^([a-z0-9][a-z0-9._-]*)==", kept, re.MULTILINE)}
    assert {"torch", "torchvision", "triton"} <= gone
    assert all(re.match(r"(torch|torchvision|triton)$|nvidia-|cuda-", name) for name in gone)


@pytest.mark.parametrize("file", sorted(IMAGES.glob("*/Dockerfile")), ids=lambda file: file.parent.name)
def test_a_lock_that_changes_builds_its_layer_again(file: Path) -> None:
    """Each environment is made from a file of its own stage, because buildah's cache ignores the content of mounts."""
    stages = [stage for stage in file.read_text().split("\nFROM ") if "bin/environment" in stage.partition("RUN")[2]]
    stages = [stage for stage in stages if "/build/usr/local/bin/environment" in stage]

    assert stages
    for stage in stages:
        before, _, run = stage.partition("\nRUN ")
        assert re.search(r"^COPY images/\S+\.lock /usr/share/diffugen/requirements\.lock$", before, re.MULTILINE)
        assert "environment /usr/share/diffugen/requirements.lock" in run
