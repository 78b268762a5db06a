"""Every variant of the chart, and deploy/, in a strict dry run on a real API server, without a warning."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml

from devcluster import Cluster
from devcluster.binaries import Tool, module_source
from devcluster.building import ConsoleReporter
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from tests.chart.helm import CHART, NAMESPACE, ROOT, VARIANTS, Json, helm, merged, render

MONITORING = ("servicemonitors", "podmonitors", "prometheusrules")
"""Kinds of the Prometheus operator that the chart uses; tests/chart/test_monitoring.py checks what they say."""
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Cluster:
    """The cluster, with the namespaces that the variants name, all of them restricted, and with others' CRDs."""
    for name in (NAMESPACE, "vision", "audio"):
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    sources = module_source(
        Tool.PROMETHEUS_OPERATOR, "github.com/prometheus-operator/prometheus-operator", ConsoleReporter()
    )
    for kind in MONITORING:
        file = sources / "example" / "prometheus-operator-crd" / f"monitoring.coreos.com_{kind}.yaml"
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(file))
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{kind}.monitoring.coreos.com", "--timeout=60s")
    return cluster


def dry_run(cluster: Cluster, manifests: list[Json]) -> tuple[int, str]:
    """Return how many objects the API server would accept, and all other output of kubectl."""
    command = ["kubectl", f"--kubeconfig={cluster.kubeconfig}", "apply", "--server-side", "--dry-run=server"]
    done = subprocess.run(
        [*command, "--validate=strict", "--field-manager=chart-test", "--force-conflicts", "-f", "-"],
        input=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout.count("serverside-applied (server dry run)"), done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_api_server_would_accept_every_object(server: Cluster, variant: str) -> None:
    manifests = render(VARIANTS[variant])

    assert dry_run(server, manifests) == (len(manifests), "")


def test_an_unknown_field_and_an_unrestricted_pod_would_be_reported(server: Cluster) -> None:
    (deployment,) = (m for m in render() if m["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["securityContext"] = {}
    deployment["spec"]["unknownField"] = True

    _, said = dry_run(server, [deployment])
    assert "unknownField" in said
    del deployment["spec"]["unknownField"]
    assert "would violate PodSecurity" in dry_run(server, [deployment])[1]


def test_an_unknown_field_of_a_monitor_would_be_reported(server: Cluster) -> None:
    variant = VARIANTS["everything for Prometheus and Grafana"]
    monitors = [m for m in render(variant) if m["apiVersion"] == "monitoring.coreos.com/v1"]
    assert {m["kind"] for m in monitors} == {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    for monitor in monitors:
        monitor["spec"]["unknownField"] = True

        assert "unknownField" in dry_run(server, [monitor])[1]


def test_kubectl_apply_k_would_be_accepted(server: Cluster) -> None:
    flags = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    said = server.kubectl("apply", *flags, "-k", str(ROOT / "deploy"))

    assert said.count("serverside-applied") == said.count("\n") > 8


NOTED = {
    "as it comes": (NAMESPACE, "http://minio.storage:9000"),
    "one namespace of another name": ("vision", "http://minio.storage:9000"),
    "cluster-wide": ("default", "http://minio.storage:9000"),
    "a default store": (NAMESPACE, "https://s3.example"),
    "MinIO for trials": (NAMESPACE, f"http://notes-diffugen-operator-minio.{NAMESPACE}:9000"),
    "MinIO with a volume": ("vision", f"http://notes-diffugen-operator-minio.{NAMESPACE}:9000"),
}


@pytest.mark.parametrize("variant", NOTED)
def test_the_notes_end_with_a_dataset_that_can_be_applied(server: Cluster, variant: str) -> None:
    namespace, store = NOTED[variant]
    values = merged(VARIANTS[variant], {"crds": {"enabled": False}})  # which other tests have applied without Helm
    flags = ("--namespace", NAMESPACE, "--dry-run=server")
    notes = helm("install", "notes", CHART, *flags, values=values, kubeconfig=server.kubeconfig).partition("NOTES:")[2]

    applied = re.search(
        rf"kubectl apply --namespace {namespace} -f - <<'EOF'\n(.*?)\nEOF\n(kubectl wait.*)", notes, re.DOTALL
    )
    assert applied is not None, notes
    spec = LabeledDatasetSpec.model_validate(yaml.safe_load(applied[1])["spec"])
    assert store in notes
    assert (spec.output.s3 is None) == (store != "http://minio.storage:9000")
    secret = re.search(r"kubectl create secret generic (\S+)", notes)
    assert (secret and secret[1]) == {"a default store": "keys"}.get(variant)
