"""NetworkPolicies: which connections are allowed."""

from __future__ import annotations

from typing import Any

from diffugen_api.contract import LABEL_MANAGED_BY, LABEL_STEP, MANAGED_BY, METRICS_PORT
from diffugen_api.v1alpha1 import LabeledDatasetSpec, ShardStatus, StageStatus
from diffugen_operator.manifests.jobs import RunPlan, stage_job
from diffugen_operator.manifests.names import RunKey
from diffugen_operator.settings import Settings
from tests.chart.helm import NAMESPACE, RELEASE, VARIANTS, Json, of_kind, one, render
from tests.operator.lives import spec_data

GENERATOR = f"{RELEASE}-generator"


def a_generator_pod() -> Json:
    """Return the pod template of a stage, as the operator makes it."""
    key = RunKey(uid="u", namespace="vision", name="shapes", revision="3f9a1c07de", store="0011223344", attempt=1)
    run = RunPlan(key=key, spec=LabeledDatasetSpec.model_validate(spec_data()), settings=Settings())
    stage = StageStatus(name="base", kind="txt2img", shards=ShardStatus(total=1))
    template: Json = stage_job(run, stage, 1)["spec"]["template"]
    return template


def ports(rules: list[Any]) -> list[list[Any]]:
    return [[port["port"] for port in rule["ports"]] for rule in rules]


def test_selectors_match_the_pods_that_the_operator_makes() -> None:
    labels = a_generator_pod()["metadata"]["labels"]
    (container,) = a_generator_pod()["spec"]["containers"]
    manifests = render({"networkPolicy": {"enabled": True}, "metrics": {"podMonitor": {"enabled": True}}})
    policy, monitor = one(manifests, "NetworkPolicy", GENERATOR), one(manifests, "PodMonitor")

    assert policy["spec"]["podSelector"]["matchLabels"] == {LABEL_MANAGED_BY: MANAGED_BY}
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["spec"]["selector"]["matchLabels"][LABEL_STEP] == "stage"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert [port["name"] for port in container["ports"]] == [endpoint["port"]]
    operator = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert not policy["spec"]["podSelector"]["matchLabels"].items() <= operator.items()


def test_the_operator_reaches_dns_the_api_server_and_its_pods_metrics() -> None:
    spec = one(render({"networkPolicy": {"enabled": True}, "namespaces": ["vision"]}), "NetworkPolicy", RELEASE)["spec"]

    assert ports(spec["egress"]) == [[53, 53], [443, 6443], [METRICS_PORT]]
    (peer,) = spec["egress"][2]["to"]
    assert peer["podSelector"]["matchLabels"] == {LABEL_MANAGED_BY: MANAGED_BY}
    (expression,) = peer["namespaceSelector"]["matchExpressions"]
    assert expression == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["vision"]}


def test_generator_pods_reach_dns_the_store_and_the_model_hub() -> None:
    policy = one(render({"networkPolicy": {"enabled": True}}), "NetworkPolicy", GENERATOR)

    assert policy["metadata"]["namespace"] == NAMESPACE
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert ports(policy["spec"]["egress"]) == [[53, 53], [443, 9000], [443]]
    assert ports(policy["spec"]["ingress"]) == [[METRICS_PORT]]


def test_tight_policies_name_their_peers() -> None:
    manifests = render(VARIANTS["tight network policies"])
    operator, generator = one(manifests, "NetworkPolicy", RELEASE), one(manifests, "NetworkPolicy", GENERATOR)
    test_pod = one(manifests, "Pod")["metadata"]["labels"]

    assert [rule.get("to") for rule in generator["spec"]["egress"]] == [
        None,
        [{"ipBlock": {"cidr": "10.1.2.3/32"}}],
        [{"ipBlock": {"cidr": "10.9.0.0/16"}}],
    ]
    (metrics,) = operator["spec"]["ingress"]
    assert metrics["from"][0]["podSelector"]["matchLabels"].items() <= test_pod.items(), "helm test gets through"
    (metrics,) = generator["spec"]["ingress"]
    labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert metrics["from"][0]["podSelector"]["matchLabels"].items() <= labels.items(), "progress gets through"
    assert len(metrics["from"]) == 2


def test_the_bundled_minio_is_reached_by_its_labels() -> None:
    manifests = render(VARIANTS["MinIO with a volume"])
    labels = one(manifests, "Deployment", f"{RELEASE}-minio")["spec"]["template"]["metadata"]["labels"]

    policies = [p for p in of_kind(manifests, "NetworkPolicy") if p["metadata"]["name"] == GENERATOR]
    assert {policy["metadata"]["namespace"] for policy in policies} == {"vision", "audio"}
    for policy in policies:
        rule = policy["spec"]["egress"][1]
        (peer,) = rule["to"]
        assert [port["port"] for port in rule["ports"]] == [9000]
        assert peer["podSelector"]["matchLabels"].items() <= labels.items()
        assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": NAMESPACE}
