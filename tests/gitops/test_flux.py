"""Flux's health checks: the expressions, in a real CEL, on objects in every phase."""

from __future__ import annotations

import pytest
import yaml

from diffugen_api.contract import GROUP, KIND, VERSION
from tests.gitops.engines import FLUX, ROOT, flux_checks, flux_status
from tests.gitops.phases import EXPECTED, object_in
from tests.operator.kstatus import kstatus

CHECKS = dict(flux_checks())


@pytest.mark.parametrize("phase", EXPECTED)
def test_waiting_for_the_published_dataset(phase: str) -> None:
    assert flux_status(object_in(phase), CHECKS["datasets"]) == EXPECTED[phase].flux


@pytest.mark.parametrize("phase", EXPECTED)
def test_waiting_for_the_plan(phase: str) -> None:
    assert flux_status(object_in(phase), CHECKS["datasets-planned"]) == EXPECTED[phase].flux_planned


@pytest.mark.parametrize("phase", EXPECTED)
def test_without_expressions_kstatus_gives_the_same_result(phase: str) -> None:
    assert kstatus(object_in(phase)) == EXPECTED[phase].flux


def test_the_expressions_are_for_this_kind_and_the_operator_comes_first() -> None:
    manifests = {m["metadata"]["name"]: m for m in yaml.safe_load_all(FLUX.read_text())}

    assert CHECKS.keys() == {"datasets", "datasets-planned"}
    for name, checks in CHECKS.items():
        assert (checks["apiVersion"], checks["kind"]) == (f"{GROUP}/{VERSION}", KIND)
        assert manifests[name]["spec"]["dependsOn"] == [{"name": "diffugen-operator"}]
        assert manifests[name]["spec"]["wait"] is True
    assert (ROOT / manifests["diffugen-operator"]["spec"]["path"] / "kustomization.yaml").exists()
