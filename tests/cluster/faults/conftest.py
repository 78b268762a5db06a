"""Faults in a random order that a number decides: `FAULT_SEED=… pytest tests/cluster/faults` meets the same ones."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from tests.cluster.faults.runs import TINY
from tests.cluster.world import Json, World

SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(10**6))


@pytest.fixture(autouse=True)
def seed() -> int:
    """What all chance in a test derives from; shown with every failure."""
    print(f"FAULT_SEED={SEED}")
    return SEED


@pytest.fixture(scope="module")
def undisturbed(new_world: Callable[[str], World]) -> Json:
    """The dataset that all runs here have to end with: its status, where nothing came in between."""
    world = new_world("calm")
    world.operator.start()
    world.apply(**TINY)
    status: Json = world.wait_ready()["status"]
    world.operator.end()
    return status
