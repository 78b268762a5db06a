"""The workflows for GitHub: actionlint accepts them, and they build every image and wheel of this checkout."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from devcluster.binaries import Tool, ensure_tool
from devcluster.building import ConsoleReporter
from tests.packaging.wheels import MEMBERS, ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


def actionlint(*files: Path) -> list[str]:
    """The errors that actionlint reports, with only its own rules, whichever other linters are installed."""
    program = ensure_tool(Tool.ACTIONLINT, ConsoleReporter()) / "actionlint"
    done = subprocess.run(
        [program, "-oneline", "-shellcheck=", "-pyflakes=", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


def test_actionlint_finds_no_error_in_the_workflows() -> None:
    assert WORKFLOWS
    assert actionlint(*WORKFLOWS) == []


def test_actionlint_finds_a_planted_error(tmp_path: Path) -> None:
    text = next(file for file in WORKFLOWS if file.stem == "release").read_text()
    wrong = tmp_path / "release.yaml"
    wrong.write_text(text.replace("needs.version.outputs.version", "needs.version.outputs.release"))

    assert any('"release" is not defined' in line for line in actionlint(wrong))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_file_that_they_name_exists(file: Path) -> None:
    text = file.read_text()
    named = re.findall(r"(?<![\w./-])(?:images|charts|operator|generator|crds)/[\w./-]+\w", text)
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_a_release_builds_every_image_and_every_wheel() -> None:
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yaml").read_text())["jobs"]

    images = {(each["file"], each["target"]) for each in release["images"]["strategy"]["matrix"]["include"]}
    stages = {
        (f"images/{name}/Dockerfile", target) for name, targets in
        {"operator": ["operator"], "generator": ["light", "models"]}.items() for target in targets
    }  # fmt: skip
    assert images == stages
    for file, target in images:
        assert f" AS {target}\n" in (ROOT / file).read_text()
    script = next(step["run"] for step in release["wheels"]["steps"] if step.get("name") == "Build")
    assert f"for member in {' '.join(MEMBERS.values())}; do" in script


def test_a_release_publishes_the_krew_archive_at_the_address_in_its_manifest() -> None:
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yaml").read_text())["jobs"]

    assert "wheels" in release["plugin"]["needs"], "the launcher runs the published package"
    assert release["plugin"]["permissions"] == {"contents": "write"}
    build, publish = (step for step in release["plugin"]["steps"] if "run" in step)
    assert build["env"]["PAGE"] == "${{ github.server_url }}/${{ github.repository }}"
    assert 'build.py krew --url "$PAGE/releases/download/v{version}"' in build["run"], "where a release has its files"
    assert 'gh release upload "$GITHUB_REF_NAME" --clobber krew/*' in publish["run"]
