"""The chart of a release names the images of that release."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.chart.helm import CHART, ROOT, helm


def test_a_released_chart_names_its_own_images(tmp_path: Path) -> None:
    chart = Path(shutil.copytree(CHART, tmp_path / "chart"))
    flags = ["--version", "1.2.3-rc.1", "--images", "registry.example/team/sub", "--chart", str(chart)]
    subprocess.run([sys.executable, str(ROOT / "charts" / "release.py"), *flags], check=True, timeout=60)

    meta = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert meta["version"] == meta["appVersion"] == "1.2.3-rc.1"
    rendered = helm("template", "x", chart)
    wanted = {f"registry.example/team/sub/{name}:1.2.3-rc.1" for name in ("operator", "generator", "generator-light")}
    assert all(image in rendered for image in wanted)
    assert "diffugen/operator" not in rendered
    annotated = yaml.safe_load(meta["annotations"]["artifacthub.io/images"])
    assert {entry["image"] for entry in annotated} == wanted


def test_a_chart_in_an_unexpected_form_is_not_partly_released(tmp_path: Path) -> None:
    chart = Path(shutil.copytree(CHART, tmp_path / "chart"))
    (chart / "values.yaml").write_text("image: {}\n")
    flags = ["--version", "1.2.3", "--images", "ghcr.io/team", "--chart", str(chart)]
    former = (chart / "Chart.yaml").read_text()
    command = [sys.executable, str(ROOT / "charts" / "release.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 1
    assert "0 times, not 1: adapt it" in done.stderr
    assert (chart / "Chart.yaml").read_text() == former
