"""The order of the test files."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest

CLUSTER = Path(__file__).parent / "cluster"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files that wait for a cluster evenly among those that compute, so that workers use all cores."""
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    waiting = [tests for tests in files if tests[0].path.is_relative_to(CLUSTER)]
    computing = [tests for tests in files if not tests[0].path.is_relative_to(CLUSTER)]
    places = [(place / len(group), tests) for group in (waiting, computing) for place, tests in enumerate(group)]
    items[:] = [item for _, tests in sorted(places, key=lambda each: each[0]) for item in tests]
