"""The commands of the README's section "On a cluster", run as they are there, end with a dataset without any GPU."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from itertools import takewhile

import pytest

from tests.e2e.images import ROOT
from tests.e2e.installation import SYSTEM, Installation, helm_folder

FIRST = "helm install "
LOCAL_IMAGES = ",image.registry="
"""What the README adds to the first command when the images are built here."""


def commands() -> list[str]:
    """Return the commands of the section's first block."""
    section = (ROOT / "README.md").read_text().partition("\n## On a cluster\n")[2]
    lines = section.partition("```console\n")[2].splitlines()
    return [line.removeprefix("$ ") for line in takewhile(lambda line: line != "```", lines)]


@pytest.fixture
def trial(whole: Installation) -> Iterator[Installation]:
    """The node without a release; what the commands install is removed."""
    yield whole
    whole.cluster.kubectl("delete", "lds", "--all", "-n", SYSTEM)
    whole.uninstall()


def test_the_readmes_commands_end_with_a_dataset(trial: Installation) -> None:
    install, *others = commands()
    assert install.startswith(FIRST)
    assert f"`{LOCAL_IMAGES}`" in (ROOT / "README.md").read_text()
    path = f"{helm_folder()}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(trial.cluster.kubeconfig)}

    for command in (install + LOCAL_IMAGES, *others):
        done = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}\n{trial.pods(SYSTEM)}"

    dataset = trial.dataset(SYSTEM, "trial")
    assert dataset["status"]["dataset"]["samples"] == 24
    pods = trial.cluster.items("pods", namespace=SYSTEM, selector="batch.kubernetes.io/job-name")
    assert {pod["status"]["phase"] for pod in pods} == {"Succeeded"}
    assert not any("nvidia.com/gpu" in str(pod["spec"]) for pod in pods)
