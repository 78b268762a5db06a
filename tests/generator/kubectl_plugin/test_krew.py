"""The archive and the manifest for krew."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

VERSION = version("diffugen")
BUILD = Path(__file__).parents[3] / "generator" / "krew" / "build.py"


def build(folder: Path) -> None:
    where = ["--url", "https://example.org/v{version}/", "--homepage", "https://example.org"]
    subprocess.run([sys.executable, BUILD, folder, *where], check=True, timeout=120)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    build(tmp_path)
    return tmp_path


def test_the_manifest_names_the_archive_with_its_digest(built: Path) -> None:
    spec = yaml.safe_load((built / "labeleddataset.yaml").read_text())["spec"]

    (platform,) = spec["platforms"]
    name = platform["uri"].rpartition("/")[2]
    assert platform["uri"] == f"https://example.org/v{VERSION}/{name}"
    content = (built / name).read_bytes()
    assert platform["sha256"] == hashlib.sha256(content).hexdigest()
    assert spec["version"] == f"v{VERSION}"
    assert len(spec["shortDescription"]) <= 50, "krew's limit"
    assert "the report in a browser" in spec["description"]
    with tarfile.open(built / name) as tar:
        assert {entry["from"] for entry in platform["files"]} == set(tar.getnames())
        assert tar.getmember(platform["bin"]).mode & 0o111


def test_the_archive_is_the_same_each_time(built: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    again = tmp_path_factory.mktemp("again")
    build(again)

    assert {file.name: file.read_bytes() for file in again.iterdir()} == {
        file.name: file.read_bytes() for file in built.iterdir()
    }


@pytest.mark.parametrize(("runner", "flags"), [("uvx", "--quiet --from"), ("pipx", "run --spec")])
def test_the_launcher_runs_this_version_of_the_package(built: Path, runner: str, flags: str) -> None:
    launcher = unpacked(built)
    (built / runner).write_text('#!/bin/sh\necho "$@"\n')
    (built / runner).chmod(0o755)

    done = subprocess.run(
        [launcher, "status", "a b"], env={"PATH": f"{built}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{flags} diffugen=={VERSION} kubectl-labeleddataset status a b\n"


def test_without_uv_and_pipx_the_launcher_prints_what_to_install(built: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", unpacked(built), "status"],
        env={**os.environ, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert f"pip install 'diffugen=={VERSION}'" in done.stderr


def unpacked(built: Path) -> Path:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(built, filter="data")
    return built / "kubectl-labeleddataset"
