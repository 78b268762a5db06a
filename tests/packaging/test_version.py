"""The version of a checkout, from git's tags."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from version import UNRELEASED, version_of

from tests.packaging.wheels import MEMBERS, ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit, and nothing but `version.py` in it."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(ROOT / "version.py", folder)
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def git(folder: Path, *arguments: str) -> None:
    own = [
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@example.org",
        "-c",
        "commit.gpgsign=false",
        "-c",
        "tag.gpgsign=false",
    ]
    subprocess.run(["git", "-C", folder, *own, *arguments], check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "a commit")


def printed(folder: Path, **environment: str) -> str:
    own = {
        name: value for name, value in os.environ.items() if name != "DIFFUGEN_VERSION" and not name.startswith("GIT_")
    }
    command = [sys.executable, "version.py"]
    done = subprocess.run(command, cwd=folder, env={**own, **environment}, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_at_a_tag_it_is_the_tags_and_after_it_the_next_ones(checkout: Path) -> None:
    assert printed(checkout) == UNRELEASED
    git(checkout, "tag", "--annotate", "--message", "a release", "v1.2.9")
    git(checkout, "tag", "moved")  # not a version's
    assert printed(checkout) == "1.2.9"

    for _ in range(2):
        commit(checkout)
        assert printed(checkout) == "1.2.10.dev0"


def test_a_shallow_clone_of_a_tag_has_it_and_one_without_tags_is_not_released(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "tag", "v2.0.0")
    clone = ["clone", "--quiet", "--depth", "1", f"file://{checkout}"]
    git(tmp_path, *clone, "--branch", "v2.0.0", "released")
    assert printed(tmp_path / "released") == "2.0.0"

    commit(checkout)
    git(tmp_path, *clone, "--no-tags", "shallow")
    assert printed(tmp_path / "shallow") == UNRELEASED


def test_the_variable_overrides_git(checkout: Path) -> None:
    git(checkout, "tag", "v2.0.0")

    assert printed(checkout, DIFFUGEN_VERSION="4.5.6") == "4.5.6"


def test_without_git_and_inside_another_projects_repository_it_is_not_released(checkout: Path) -> None:
    git(checkout, "tag", "v9.9.9")
    vendored = checkout / "vendored"
    vendored.mkdir()
    shutil.copy(ROOT / "version.py", vendored)

    assert printed(vendored) == UNRELEASED
    assert printed(checkout, PATH="") == UNRELEASED


@pytest.mark.parametrize(
    ("described", "version"),
    [
        ("v1.2.3-0-gabcdef0", "1.2.3"),
        ("v1.2.3-17-gabcdef0\n", "1.2.4.dev0"),
        ("v1.3.0rc1-0-gabcdef0", "1.3.0rc1"),
        ("v1.3.0rc1-2-gabcdef0", "1.3.0.dev0"),
    ],
)
def test_the_version_of_a_description(described: str, version: str) -> None:
    assert version_of(described) == version


def test_a_tag_that_is_no_version_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'v1-final-0-gabcdef0' is not after a tag of a version"):
        version_of("v1-final-0-gabcdef0")


@pytest.mark.parametrize("folder", MEMBERS.values())
def test_every_distribution_reads_the_one_file(folder: str) -> None:
    assert (ROOT / folder / "version.py").resolve() == (ROOT / "version.py").resolve()
