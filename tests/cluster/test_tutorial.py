"""Every command of the tutorial, as it stands there. The example is cut to eight images."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.world import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

OPERATOR = '.venv/bin/diffugen-operator --kubeconfig "$KUBECONFIG" &'
WATCH = "kubectl get lds --watch"
REPLACED = {
    OPERATOR: f'{OPERATOR}\ntrap "kill $!" EXIT',
    WATCH: f"timeout 5 {WATCH} || true\nkubectl wait --for=condition=Ready lds/shapes --timeout=300s",
}
"""Commands that a script must end."""


def blocks() -> list[str]:
    """Return the commands of each console block of the tutorial, as a script."""
    text = (ROOT / "docs" / "tutorial.md").read_text()
    found = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(r"^\$ ", "", block, flags=re.MULTILINE) for block in found]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with everything of the repository but a smaller example."""
    for entry in ROOT.iterdir():
        if entry.name not in {"examples", "out"}:
            (tmp_path / entry.name).symlink_to(entry)
    example = yaml.safe_load((ROOT / "examples" / "shapes.yaml").read_text())
    prompts = example["spec"]["prompts"]
    prompts["templates"] = prompts["templates"][:1]
    prompts["variables"] = {"object": ["ball", "star"], "color": ["red", "green"], "place": ["snow", "stone"]}
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "shapes.yaml").write_text(yaml.safe_dump(example))
    return tmp_path


def run(script: str, checkout: Path) -> str:
    for command, endless in REPLACED.items():
        script = script.replace(command, endless)
    script = re.sub(r"^make ", "make --old-file=venv ", script, flags=re.MULTILINE)  # other tests use the environment
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=checkout,
        env={**os.environ, "XDG_STATE_HOME": str(checkout / "state"), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_tutorial_has_two_blocks() -> None:
    assert len(blocks()) == 2
    assert all(any(command in block for block in blocks()) for command in REPLACED)


def test_without_a_cluster(checkout: Path) -> None:
    said = run(blocks()[0], checkout)

    assert "shapes: valid, 8 samples" in said
    assert (checkout / "out" / "default" / "shapes" / "current.json").is_file()


def test_on_a_throwaway_cluster(checkout: Path) -> None:
    try:
        said = run(blocks()[1], checkout)
    finally:
        run("make cluster-down", checkout)

    assert "labeleddataset.diffugen.dev/shapes condition met" in said
