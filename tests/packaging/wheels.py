"""Building the distributions and installing them as their users do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MEMBERS = {"diffugen-api": "crds", "diffugen-operator": "operator", "diffugen": "generator"}
"""The shipped distributions: the name of each, and the folder that it is built from."""
LOCK = ROOT / "requirements.lock"


def project_of(folder: str) -> dict[str, Any]:
    """The `[project]` table of a folder's pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    return table


def dependencies_of(folder: str) -> list[str]:
    """The requirements of a folder's distribution; `{version}` stands for its own version."""
    table = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]
    found: list[str] = table["custom"]["dependencies"]
    return found


def build(folder: str, target: str, into: Path, **environment: str) -> Path:
    """Build one distribution, `wheel` or `sdist`, and return its file."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": "1704067200", **environment}
    done = subprocess.run(command, cwd=ROOT / folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name = project_of(folder)["name"].replace("-", "_")
    [file] = into.glob(f"{name}-[0-9]*{'.whl' if target == 'wheel' else '.tar.gz'}")
    return file


def metadata_of(wheel: Path) -> Message:
    """The metadata that an index shows for a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def uv() -> str:
    """The uv that the Makefile uses: that of the PATH, else its own."""
    own = ROOT / ".uv" / "bin" / "uv"
    found = shutil.which("uv") or (str(own) if own.exists() else None)
    assert found is not None, "uv is neither on the PATH nor in .uv: make venv"
    return found


def install(venv: Path, wheels: Path, *requirements: str) -> None:
    """Make an empty environment and install into it, from `wheels` and the package index, at the lock's versions.

    Files are linked out of uv's cache, so even torch takes seconds.
    """
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, venv], check=True)
    command = [uv(), "pip", "install", "--quiet", "--python", str(venv / "bin" / "python"), "--link-mode", "symlink"]
    command += ["--find-links", str(wheels), "--constraints", str(LOCK)]
    # At the version built here, so that the index cannot replace it with an older release of the same name.
    [api] = wheels.glob("diffugen_api-*.whl")
    command += [f"{requirement}=={metadata_of(api)['Version']}" for requirement in requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run_installed(venv: Path, *command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of an environment in `folder`, away from this checkout."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    program, *arguments = command
    return subprocess.run(
        [venv / "bin" / program, *arguments], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
