"""Argo CD's health of LabeledDatasets and Applications: the scripts, in a real Lua, on objects in every phase."""

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
APPLICATION = ROOT / "gitops" / "argocd" / "resource_customizations" / "argoproj.io" / "Application" / "health.lua"
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


@pytest.mark.parametrize("status", ["Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"])
def test_an_application_has_the_health_that_argo_cd_gave_it(status: str) -> None:
    judged = an_application({"sync": {"status": "Synced"}, "health": {"status": status, "message": "3 of 4"}})

    assert argocd_health(judged, APPLICATION.read_text()) == (status, "3 of 4")


def test_the_health_of_an_application_may_have_no_message() -> None:
    judged = an_application({"health": {"status": "Healthy", "lastTransitionTime": "2026-11-22T20:11:04Z"}})

    assert argocd_health(judged, APPLICATION.read_text()) == ("Healthy", "")


@pytest.mark.parametrize("status", [None, {}, {"sync": {"status": "OutOfSync"}}, {"health": {}}], ids=str)
def test_an_application_that_argo_cd_has_not_judged_is_progressing(status: Json | None) -> None:
    assert argocd_health(an_application(status), APPLICATION.read_text())[0] == "Progressing"


def an_application(status: Json | None) -> Json:
    """Return the Application of the datasets with this status."""
    _, datasets = yaml.safe_load_all((ROOT / "gitops" / "argocd" / "application.yaml").read_text())
    application: Json = datasets
    return application if status is None else {**application, "status": status}


def test_the_config_map_holds_the_scripts() -> None:
    snippet = yaml.safe_load((ROOT / "gitops" / "argocd" / "argocd-cm.yaml").read_text())

    of_dataset = "resource.customizations.health.diffugen.dev_LabeledDataset"
    of_application = "resource.customizations.health.argoproj.io_Application"
    assert snippet["data"] == {
        of_dataset: (ARGOCD / "health.lua").read_text(),
        of_application: APPLICATION.read_text(),
    }
    assert argocd_health(object_in("published"), snippet["data"][of_dataset])[0] == "Healthy"
    degraded = an_application({"health": {"status": "Degraded"}})
    assert argocd_health(degraded, snippet["data"][of_application])[0] == "Degraded"


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


def test_the_parent_of_the_applications_is_in_no_wave_and_keeps_them_as_they_are_in_git() -> None:
    parent = yaml.safe_load((ROOT / "gitops" / "argocd" / "parent.yaml").read_text())
    children = list(yaml.safe_load_all((ROOT / "gitops" / "argocd" / "application.yaml").read_text()))

    assert parent["kind"] == "Application"
    assert "annotations" not in parent["metadata"]
    assert parent["metadata"]["name"] not in {child["metadata"]["name"] for child in children}
    assert {child["metadata"]["namespace"] for child in children} == {parent["spec"]["destination"]["namespace"]}
