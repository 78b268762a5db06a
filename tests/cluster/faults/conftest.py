"""Faults in a random order from a seed: `FAULT_SEED=… pytest tests/cluster/faults` repeats the same faults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from tests.cluster.faults.runs import SEED, TINY
from tests.cluster.world import a_manifest


@pytest.fixture(autouse=True)
def seed() -> int:
    """The seed of all random choices in a test; every failure shows it."""
    print(f"FAULT_SEED={SEED}")
    return SEED


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> str:
    """The manifest's digest that all runs here must end with, computed by a run without a cluster.

    It is computed once for all workers of pytest-xdist.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "undisturbed"
    with FileLock(folder.with_suffix(".lock")):
        if not (store := folder / "store").exists():
            _run_undisturbed(folder, store)
    (pointer,) = store.rglob("current.json")
    digest: str = json.loads(pointer.read_text())["manifestSHA256"]
    return digest


def _run_undisturbed(folder: Path, store: Path) -> None:
    folder.mkdir(exist_ok=True)
    manifest = folder / "shapes.yaml"
    manifest.write_text(yaml.safe_dump(a_manifest("calm", "http://127.0.0.1:9", "calm", **TINY)))
    command = [str(Path(sys.executable).with_name("diffugen")), "run", str(manifest), f"--store={store}", "--json"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
