"""The order of the test files, the kubectl of the tests, and how they use the processor and memory."""

from __future__ import annotations

import gc
import os
import shutil
from collections import defaultdict
from itertools import groupby
from pathlib import Path

import pytest

from devcluster.binaries import cache_directory

TESTS = Path(__file__).parent
WAITING = (TESTS / "cluster" / "faults", TESTS / "cluster")
"""The folders whose tests wait for a cluster: the first for most of their time."""


def pytest_configure() -> None:
    """Let processes compute on one thread each; without a kubectl, put that of `devcluster binaries` on the PATH.

    The tests run side by side, so that a second thread would only wait for a core.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if shutil.which("kubectl") is None:
        os.environ["PATH"] += f"{os.pathsep}{cache_directory()}"


def pytest_collection() -> None:
    """Search no garbage while all tests are imported: of a million new objects, almost all stay."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Exclude what was imported from the searches for garbage from now on."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let Python clean up: libraries print what is left."""
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files that wait for a cluster evenly among those that compute, so that workers use all cores."""
    groups: defaultdict[Path, list[list[pytest.Item]]] = defaultdict(list)
    for path, tests in groupby(items, key=lambda item: item.path):
        groups[next((folder for folder in WAITING if path.is_relative_to(folder)), TESTS)].append(list(tests))
    groups[TESTS].sort(key=lambda tests: tests[0].path.parent != TESTS / "packaging")  # the longest of them come first
    places = [(place / len(files), tests) for files in groups.values() for place, tests in enumerate(files)]
    items[:] = [item for _, tests in sorted(places, key=lambda each: each[0]) for item in tests]
