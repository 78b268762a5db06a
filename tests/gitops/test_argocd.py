"""Argo CD's health of a LabeledDataset: the script, in a real Lua, on objects in every phase."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.gitops.engines import ARGOCD, ROOT, Json, argocd_health
from tests.gitops.phases import EXPECTED, object_in
from tests.operator.status.test_kstatus import PHASES

HEALTH_TEST: Json = yaml.safe_load((ARGOCD / "health_test.yaml").read_text())
FILES = [path.name for path in (ARGOCD / "testdata").iterdir()]


@pytest.mark.parametrize("phase", EXPECTED)
def test_the_health_of_each_phase(phase: str) -> None:
    status, message = argocd_health(object_in(phase))

    assert status == EXPECTED[phase].health
    assert message


def test_every_phase_is_judged_except_deletion() -> None:
    assert PHASES.keys() - EXPECTED.keys() == {
        phase for phase, (_, status) in PHASES.items() if status == "Terminating"
    }


@pytest.mark.parametrize("case", HEALTH_TEST["tests"], ids=lambda case: case["inputPath"])
def test_the_test_data_passes_the_rules_of_argo_cds_own_test(case: Json) -> None:
    obj = yaml.safe_load((ARGOCD / case["inputPath"]).read_text())

    assert argocd_health(obj) == (case["healthStatus"]["status"], case["healthStatus"]["message"])


def test_all_of_the_test_data_is_used() -> None:
    assert {case["inputPath"] for case in HEALTH_TEST["tests"]} == {f"testdata/{name}" for name in FILES}
    assert {case["healthStatus"]["status"] for case in HEALTH_TEST["tests"]} == {
        "Healthy",
        "Progressing",
        "Degraded",
        "Suspended",
    }


@pytest.mark.parametrize("phase", EXPECTED)
def test_the_test_data_is_what_the_operator_writes(phase: str) -> None:
    recorded = yaml.safe_load((ARGOCD / "testdata" / f"{EXPECTED[phase].file}.yaml").read_text())

    # The text of messages may change; `python -m tests.gitops.phases` records it.
    assert gist(recorded) == gist(object_in(phase)), "run: python -m tests.gitops.phases"


def gist(obj: Json) -> Any:
    """Return the fields that decide an object's health."""
    status = obj["status"]
    conditions = [(c["type"], c["status"], c["reason"]) for c in status.get("conditions", [])]
    summary = {key: value for key, value in status.get("summary", {}).items() if key in ("state", "progress", "reason")}
    return obj["metadata"]["generation"], status["observedGeneration"], conditions, summary


def test_an_object_without_status_is_progressing() -> None:
    obj = object_in("just created, not seen by anybody")
    del obj["status"]

    assert argocd_health(obj)[0] == "Progressing"


def test_a_status_of_an_earlier_spec_is_never_healthy() -> None:
    obj = copy.deepcopy(object_in("published"))
    obj["metadata"]["generation"] += 1

    assert argocd_health(obj)[0] == "Progressing"


def test_the_message_shows_the_progress_and_what_to_do() -> None:
    assert argocd_health(object_in("drawing"))[1].startswith("0/24 samples; Drawing: ")
    assert argocd_health(object_in("stalled"))[1].startswith("StoreNotSet: spec.output.s3 is not set")


def test_the_config_map_holds_the_script() -> None:
    snippet = yaml.safe_load((ROOT / "gitops" / "argocd" / "argocd-cm.yaml").read_text())

    (key,) = snippet["data"]
    assert key == "resource.customizations.health.diffugen.dev_LabeledDataset"
    assert snippet["data"][key] == (ARGOCD / "health.lua").read_text()
    assert argocd_health(object_in("published"), snippet["data"][key])[0] == "Healthy"


def test_the_rendered_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "gitops" / "render.py", "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout


def test_the_operator_has_an_earlier_wave_than_the_datasets() -> None:
    operator, datasets = yaml.safe_load_all((ROOT / "gitops" / "argocd" / "application.yaml").read_text())

    def wave(application: Json) -> int:
        return int(application["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])

    assert wave(operator) < wave(datasets)
    assert (ROOT / operator["spec"]["source"]["path"] / "Chart.yaml").exists()
    for application in (operator, datasets):
        assert "ServerSideApply=true" in application["spec"]["syncPolicy"]["syncOptions"]
