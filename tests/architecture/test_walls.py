"""Each contract of `.importlinter` finds what it forbids: one forbidden import at a time, in a copy of the sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "crds/src/diffugen_api",
    "operator/src/diffugen_operator",
    "generator/src/diffugen_generator",
    "devcluster/src/devcluster",
)
GENERATOR = "generator/src/diffugen_generator"
OPERATOR = "operator/src/diffugen_operator"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources and of the contracts."""
    root = tmp_path_factory.mktemp("walls")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=lambda folder, names: {n for n in names if _is_data(n)})
    shutil.copy(ROOT / ".importlinter", root)
    return root


def _is_data(name: str) -> bool:
    return "." in name and not name.endswith(".py")


def broken_contracts(root: Path) -> set[str]:
    """The names of the contracts that the sources below `root` break."""
    sources = os.pathsep.join(str((root / package).parent) for package in PACKAGES)
    command = [str(Path(sys.executable).with_name("lint-imports")), "--cache-dir", str(root / "cache")]
    environment = os.environ | {"PYTHONPATH": sources, "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    broken = set(re.findall(r"^(.+?) BROKEN\b", done.stdout, re.MULTILINE))
    assert re.search(r"^Contracts: \d+ kept, \d+ broken\.$", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert (done.returncode != 0) is bool(broken), done.stdout
    return broken


def test_the_unchanged_sources_keep_every_contract(copy: Path) -> None:
    assert broken_contracts(copy) == set()


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        (f"{GENERATOR}/samples/shards.py", "import torch", "Only what draws and labels imports torch"),
        (f"{GENERATOR}/families/unet/architecture.py", "import torch", "Only what draws and labels imports torch"),
        (
            f"{GENERATOR}/diffusion/drawing.py",
            "import diffugen_generator.families.unet.components",
            "Generator: only the registry imports a family",
        ),
        (
            f"{GENERATOR}/families/flux.py",
            "",
            "Generator: the registry knows the families, and no family knows another or what draws with it",
        ),
        (
            f"{GENERATOR}/store/protocol.py",
            "import diffugen_generator.store.s3",
            "Generator: the protocol of stores knows no store",
        ),
        (
            f"{GENERATOR}/in_no_layer.py",
            "",
            "Generator: commands and worker, then steps, then models and labels, then the store",
        ),
        (f"{GENERATOR}/planning/in_no_layer.py", "", "Generator: the plan looks up what is held and writes shards"),
        (
            f"{GENERATOR}/publishing/formats/coco.py",
            "import diffugen_generator.publishing.formats.yolo",
            "Generator: each file of publishing/formats is one format, and knows no other",
        ),
        (f"{GENERATOR}/quality/in_no_layer.py", "", "Generator: verdicts and duplicates know no store"),
        (
            f"{GENERATOR}/labeling/decide/in_no_layer.py",
            "",
            "Generator: the decisions that read evidence over what they share",
        ),
        (f"{OPERATOR}/in_no_layer.py", "", "Operator: the process, the shell, the policy, the builders"),
        (
            f"{OPERATOR}/policy/suspension.py",
            "import diffugen_operator.policy.decide",
            "Operator: the decision, then suspension and deletion, then the steps, then the state of a Job",
        ),
        (
            f"{OPERATOR}/policy/in_no_layer.py",
            "",
            "Operator: the decision, then suspension and deletion, then the steps, then the state of a Job",
        ),
        (f"{OPERATOR}/kube/in_no_layer.py", "", "Operator: events and election, then requests, then what is kept"),
        (f"{OPERATOR}/settings.py", "import torch", "The operator knows neither models nor stores"),
    ],
)
def test_a_forbidden_import_or_a_module_in_no_layer_breaks_its_contract(
    copy: Path, file: str, line: str, contract: str
) -> None:
    path = copy / file
    before = path.read_text() if path.exists() else None
    try:
        path.write_text(f"{before or ''}\n{line}\n")

        assert broken_contracts(copy) == {contract}
    finally:
        path.unlink() if before is None else path.write_text(before)
