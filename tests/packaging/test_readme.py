"""The README's section "On a cluster"; the end-to-end test runs its commands."""

import re

import yaml

from tests.packaging.wheels import ROOT


def blocks() -> list[list[str]]:
    """Return the commands of each block of the section."""
    section = re.split(r"\n## ", (ROOT / "README.md").read_text().partition("\n## On a cluster\n")[2])[0]
    found = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return [[line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")] for block in found]


def test_four_commands_lead_to_a_dataset() -> None:
    """With images of one's own: build, load, install, apply. `kubectl wait` only shows the end."""
    install, build = blocks()[:2]
    steps = [*build, *(command for command in install if not command.startswith("kubectl wait"))]

    assert len(steps) <= 4
    assert steps[-1].startswith("kubectl apply ")


def test_the_built_and_loaded_images_have_the_tag_that_the_chart_installs() -> None:
    tag = yaml.safe_load((ROOT / "charts" / "diffugen-operator" / "Chart.yaml").read_text())["appVersion"]
    build, load = blocks()[1]

    assert build.startswith(f"IMAGE_TAG={tag} ")
    assert load.startswith("kind load ")
    images = re.findall(r"(\S+):(\S+)", load)
    assert images == [(f"diffugen/{name}", tag) for name in ("operator", "generator-light", "generator")]
