"""How run.podTemplate is merged into the generated template: a table of base, overlay, outcome."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from diffugen_operator.manifests.overlays import overlaid

CASES: dict[str, tuple[Any, Any, Any]] = {
    "nothing changes nothing": ({"a": 1}, {}, {"a": 1}),
    "a value replaces a value": ({"a": 1}, {"a": 2}, {"a": 2}),
    "maps are merged, deeply": (
        {"spec": {"nodeSelector": {"a": "1"}}},
        {"spec": {"nodeSelector": {"b": "2"}}},
        {"spec": {"nodeSelector": {"a": "1", "b": "2"}}},
    ),
    "null removes": ({"a": 1, "b": {"c": 1}}, {"a": None, "b": {"c": None}}, {"b": {}}),
    "the generated container is merged by its name": (
        {"containers": [{"name": "generator", "image": "x", "command": ["run"]}]},
        {"containers": [{"name": "generator", "image": "y"}]},
        {"containers": [{"name": "generator", "image": "y", "command": ["run"]}]},
    ),
    "another container is added behind": (
        {"containers": [{"name": "generator"}]},
        {"containers": [{"name": "sidecar"}]},
        {"containers": [{"name": "generator"}, {"name": "sidecar"}]},
    ),
    "variables are merged by name": (
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
        {"env": [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}]},
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}]},
    ),
    "mounts are merged by their path": (
        {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]},
        {"volumeMounts": [{"name": "big", "mountPath": "/tmp"}, {"name": "m", "mountPath": "/models"}]},
        {"volumeMounts": [{"name": "big", "mountPath": "/tmp"}, {"name": "m", "mountPath": "/models"}]},
    ),
    "tolerations are added once": (
        {"tolerations": [{"key": "gpu"}]},
        {"tolerations": [{"key": "gpu"}, {"key": "spot"}]},
        {"tolerations": [{"key": "gpu"}, {"key": "spot"}]},
    ),
    "a list without keys is replaced": ({"command": ["a", "b"]}, {"command": ["c"]}, {"command": ["c"]}),
    "what makes no sense is passed on for the API server to refuse": (
        {"containers": [{"name": "generator"}]},
        {"containers": "none", "nodeSelectr": 1},
        {"containers": "none", "nodeSelectr": 1},
    ),
    "items without a key, or with an odd one, are added": (
        {"containers": [{"name": "generator"}]},
        {"containers": [{}, "x", {"name": ["generator"]}]},
        {"containers": [{"name": "generator"}, {}, "x", {"name": ["generator"]}]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_overlay(case: str) -> None:
    base, overlay, outcome = CASES[case]
    before = copy.deepcopy((base, overlay))

    assert overlaid(base, overlay) == outcome
    assert (base, overlay) == before, "neither is changed"
