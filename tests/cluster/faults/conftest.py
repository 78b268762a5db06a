"""Faults in a random order from a seed: `FAULT_SEED=… pytest tests/cluster/faults` repeats the same faults."""

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
    """The seed of all random choices in a test; every failure shows it."""
    print(f"FAULT_SEED={SEED}")
    return SEED


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The manifest's digest that all runs here must end with, computed by a run without a cluster."""
    folder = tmp_path_factory.mktemp("undisturbed")
    manifest, store = folder / "shapes.yaml", folder / "store"
    manifest.write_text(yaml.safe_dump(a_manifest("calm", "http://127.0.0.1:9", "calm", **TINY)))
    command = [str(Path(sys.executable).with_name("diffugen")), "run", str(manifest), f"--store={store}", "--json"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (pointer,) = store.rglob("current.json")
    digest: str = json.loads(pointer.read_text())["manifestSHA256"]
    return digest
