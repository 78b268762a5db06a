"""Argo Workflows, Tekton, Kubeflow: what they wait for, on objects in every phase."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from diffugen_api.contract import RETRY_ANNOTATION
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from tests.gitops.engines import PIPELINES, Json, argo_condition
from tests.gitops.phases import EXPECTED, object_in
from tests.operator.lives import Life, a_life

WORKFLOW: Json = yaml.safe_load((PIPELINES / "argo-workflows.yaml").read_text())
TEMPLATES: dict[str, Json] = {template["name"]: template for template in WORKFLOW["spec"]["templates"]}


def ends(template: str, obj: Json, **parameters: str) -> str:
    """Return the result of a template of the workflow that reads this object."""
    resource = TEMPLATES[template]["resource"]

    def filled(condition: str) -> str:
        return re.sub(r"\{\{(?:inputs\.parameters|workflow)\.(\w+)\}\}", lambda m: parameters[m[1]], condition)

    return argo_condition(obj, filled(resource["successCondition"]), filled(resource.get("failureCondition", "")))


@pytest.mark.parametrize(
    ("phase", "end"),
    [
        *((phase, "Waiting") for phase in EXPECTED if EXPECTED[phase].flux == "InProgress" and "not seen" not in phase),
        ("published", "Succeeded"),
        ("published, edited in how it runs", "Succeeded"),
        ("stalled", "Failed"),
        ("nothing has moved for long", "Waiting"),  # it may continue by itself
    ],
)
def test_a_workflow_waits_until_the_dataset_is_published_or_stalled(phase: str, end: str) -> None:
    assert ends("published", object_in(phase)) == end


def run_of_a_workflow(life: Life, uid: str) -> str:
    """Return the result of the step `seen` for a dataset to which a workflow has just applied its manifest."""
    return ends("seen", life.raw, generation=str(life.raw["metadata"]["generation"]), uid=uid)


def test_a_status_of_an_earlier_spec_or_request_is_ignored() -> None:
    life = a_life().until_published().ask_for_retry("run-2").edit(seed=7)
    assert run_of_a_workflow(life, "run-2") == "Waiting"

    life.settle()
    assert run_of_a_workflow(life, "run-2") == "Succeeded"
    assert ends("published", life.raw) == "Waiting"


def test_a_dataset_that_failed_before_begins_again_with_the_next_workflow() -> None:
    failed = a_life().until_drawing().job_fails("base", "PodFailurePolicy", "exit code 64").settle()
    assert ends("published", failed.raw) == "Failed"

    failed.ask_for_retry("run-2")
    assert run_of_a_workflow(failed, "run-2") == "Waiting"
    failed.settle()
    assert run_of_a_workflow(failed, "run-2") == "Succeeded"
    assert ends("published", failed.raw) == "Waiting"


def test_an_invalid_spec_fails_the_workflow() -> None:
    life = a_life(output={}).ask_for_retry("run-1").settle()

    assert run_of_a_workflow(life, "run-1") == "Succeeded"
    assert ends("published", life.raw) == "Failed"


def test_a_published_dataset_ends_the_next_workflow_at_once() -> None:
    life = a_life().until_published().ask_for_retry("run-2").settle()

    assert run_of_a_workflow(life, "run-2") == "Succeeded"
    assert ends("published", life.raw) == "Succeeded"


def test_the_workflow_applies_a_dataset_with_its_own_request() -> None:
    manifest = yaml.safe_load(TEMPLATES["apply"]["resource"]["manifest"])

    LabeledDatasetSpec.model_validate(manifest["spec"])
    assert manifest["metadata"]["annotations"] == {RETRY_ANNOTATION: "{{workflow.uid}}"}
    named = [step["template"] for parallel in TEMPLATES["dataset"]["steps"] for step in parallel]
    assert named == ["apply", "seen", "published"]


SHELLS: dict[str, Any] = {
    "tekton-task.yaml": lambda m: m["spec"]["steps"][0]["script"],
    "kubeflow-component.yaml": lambda m: m["implementation"]["container"]["command"][2],
}


@pytest.mark.parametrize("file", SHELLS)
def test_tekton_and_kubeflow_run_the_same_script(file: str) -> None:
    text = SHELLS[file](yaml.safe_load((PIPELINES / file).read_text()))

    assert (PIPELINES / "apply-and-wait.sh").read_text() in text
    assert "$$" not in text, "Kubernetes reads $$ in a command as $"
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def test_the_kubeflow_component_passes_its_inputs_in_the_order_of_the_script() -> None:
    component = yaml.safe_load((PIPELINES / "kubeflow-component.yaml").read_text())

    assert component["implementation"]["container"]["args"] == [
        {"inputValue": "manifest"},
        {"outputPath": "uri"},
        {"outputPath": "revision"},
    ]
    assert [entry["name"] for entry in component["outputs"]] == ["uri", "revision"]
