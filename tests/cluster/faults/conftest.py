"""Faults in a random order that a number decides: `FAULT_SEED=… pytest tests/cluster/faults` meets the same ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.faults.runs import SEED, TINY
from tests.cluster.world import a_manifest


@pytest.fixture(autouse=True)
def seed() -> int:
    """What all chance in a test derives from; shown with every failure."""
    print(f"FAULT_SEED={SEED}")
    return SEED


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The manifest's digest that all runs here have to end with: as one makes it that no cluster is needed for."""
    folder = tmp_path_factory.mktemp("undisturbed")
    manifest, store = folder / "shapes.yaml", folder / "store"
    manifest.write_text(yaml.safe_dump(a_manifest("calm", "http://127.0.0.1:9", "calm", **TINY)))
    command = [str(Path(sys.executable).with_name("diffugen")), "run", str(manifest), f"--store={store}", "--json"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (pointer,) = store.rglob("current.json")
    digest: str = json.loads(pointer.read_text())["manifestSHA256"]
    return digest
