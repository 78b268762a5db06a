"""What the images install: the versions and hashes of the workspace's lock, and no forbidden package."""

import re
import subprocess
import sys
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
    copied = r"^COPY (?:images/\S+ )*images/(?:\S+/)?(?P<lock>\S+\.lock) (?:images/\S+ )*(?P<to>/\S+)$"
    stages = [stage for stage in file.read_text().split("\nFROM ") if "/build/usr/local/bin/environment" in stage]

    assert stages
    for stage in stages:
        before, _, run = stage.partition("\nRUN ")
        found = re.search(copied, before, re.MULTILINE)
        assert found is not None, before
        path = found["to"] + found["lock"] if found["to"].endswith("/") else found["to"]
        assert f"/build/usr/local/bin/environment {path}" in run


def test_the_opencv_that_is_built_has_the_version_of_the_light_image() -> None:
    built, used = pins(IMAGES / "opencv.lock"), pins(IMAGES / "generator" / "light.lock")

    assert built["opencv-python-headless"] == used["opencv-python-headless"]


TRIM = [sys.executable, str(IMAGES / "trim")]


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with two packages, of which one has a library."""
    for name in ("one/tests/test_a.py", "one/sub/tests/data/b.txt", "one/code.py", "two/kept.so"):
        (tmp_path / "packages" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "packages" / name).write_text("not a library")
    return tmp_path / "packages"


def trimmed(packages: Path, text: str) -> subprocess.CompletedProcess[str]:
    (packages.parent / "trim.txt").write_text(text)
    command = [*TRIM, str(packages.parent / "trim.txt"), str(packages)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_the_list_names_is_removed_and_nothing_else(packages: Path) -> None:
    done = trimmed(packages, "# Tests\none/**/tests  # with their data\n\n?three/only-for-some-python\n")

    assert done.returncode == 0, done.stderr
    left = {path.relative_to(packages).as_posix() for path in packages.rglob("*") if path.is_file()}
    assert left == {"one/code.py", "two/kept.so"}


def test_a_line_of_the_list_that_matches_nothing_is_an_error(packages: Path) -> None:
    done = trimmed(packages, "one/tests\none/gone.*\n")

    assert done.returncode == 1
    assert "one/gone.* matches nothing" in done.stderr
