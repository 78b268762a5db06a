"""No API and no field newer than Kubernetes 1.32, in the chart and in what the operator creates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from diffugen_api.v1alpha1 import LabeledDatasetSpec, ShardStatus, StageStatus
from diffugen_operator.manifests import jobs
from diffugen_operator.manifests.jobs import RunPlan
from diffugen_operator.manifests.names import RunKey
from diffugen_operator.settings import Settings
from tests.chart.helm import VARIANTS, Json, render
from tests.chart.record_fields import FIELDS, KINDS, Types
from tests.operator.lives import spec_data

TYPES: Types = json.loads(FIELDS.read_text())
OTHERS = {"apiextensions.k8s.io/v1", "monitoring.coreos.com/v1"}
"""APIs without a schema in client-go: CustomResourceDefinition is older, the Prometheus operator is another project."""


def type_of(manifest: Json) -> str:
    group, _, version = manifest["apiVersion"].rpartition("/")
    return f"io.k8s.api.{group.partition('.')[0] or 'core'}.{version}.{manifest['kind']}"


def newer(value: Any, kind: str, path: str) -> Iterator[str]:
    """Yield the paths of fields that the type does not have."""
    if isinstance(value, list):
        for item in value:
            yield from newer(item, kind, f"{path}[]")
        return
    fields = TYPES.get(kind)
    if fields is None or not isinstance(value, Mapping):
        return
    for name, inner in value.items():
        if name not in fields:
            yield f"{path}.{name}"
        elif fields[name]:
            yield from newer(inner, fields[name], f"{path}.{name}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_chart_uses_only_fields_of_1_32(variant: str) -> None:
    for manifest in render(VARIANTS[variant]):
        if manifest["apiVersion"] in OTHERS:
            continue
        assert type_of(manifest) in KINDS
        assert list(newer(manifest, type_of(manifest), manifest["kind"])) == []


def test_the_operators_jobs_use_only_fields_of_1_32() -> None:
    key = RunKey(uid="u", namespace="vision", name="shapes", revision="3f9a1c07de", store="0011223344", attempt=1)
    run_spec = {"modelCache": {"persistentVolumeClaim": "models"}, "queueName": "gpus", "activeDeadlineSeconds": 60}
    spec = LabeledDatasetSpec.model_validate(spec_data(run=run_spec))
    run = RunPlan(key=key, spec=spec, settings=Settings(ca_config_map="team-ca"))
    stage = StageStatus(name="base", kind="txt2img", shards=ShardStatus(total=4))

    for manifest in (jobs.plan_job(run), jobs.stage_job(run, stage, 2), jobs.publish_job(run), jobs.delete_job(run)):
        assert list(newer(manifest, type_of(manifest), "Job")) == []


def test_a_newer_field_would_be_found() -> None:
    (deployment,) = (m for m in render() if m["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    pod["hostnameOverride"] = "x"  # from 1.34
    pod["containers"][0]["env"] = [{"name": "A", "valueFrom": {"fileKeyRef": {"path": "f"}}}]  # from 1.34

    assert list(newer(deployment, type_of(deployment), "Deployment")) == [
        "Deployment.spec.template.spec.containers[].env[].valueFrom.fileKeyRef",
        "Deployment.spec.template.spec.hostnameOverride",
    ]
