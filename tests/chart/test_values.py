"""Every value has an effect, and Helm checks every value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from tests.chart.helm import CHART, VARIANTS, HelmError, Json, helm, merged, render

VALUES: Json = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: Json = json.loads((CHART / "values.schema.json").read_text())

EVERYTHING: Json = {
    "imagePullSecrets": [],
    "minio": {"enabled": True, "accessKey": "access", "secretKey": "secret-of-it", "persistence": {"enabled": True}},
    "networkPolicy": {"enabled": True},
    "metrics": {key: {"enabled": True} for key in ("serviceMonitor", "podMonitor", "prometheusRule", "dashboard")},
    "admissionPolicy": {"enabled": True},
}
A_STORE: Json = {"store": {"endpoint": "https://s3.example", "bucket": "data"}}
TRIAL_KEYS: Json = {"minio": {"enabled": True, "accessKey": "access", "secretKey": "secret-of-it"}}
CONTEXTS: list[Json] = [EVERYTHING, A_STORE, {}, TRIAL_KEYS]
"""Values that are set beside the changed one: in one of these contexts the change must have an effect. Most have one in
the first."""

OTHERS: dict[str, Any] = {
    "admissionPolicy.actions": ["Warn"],
    "admissionPolicy.allowedSecrets": ["huggingface"],
    "admissionPolicy.namespaceSelector": {"matchLabels": {"team": "vision"}},
    "affinity": {"podAntiAffinity": {}},
    "extraEnv": [{"name": "A", "value": "b"}],
    "generator.image.digest": f"sha256:{'1' * 64}",
    "generator.lightImage.digest": f"sha256:{'1' * 64}",
    "image.digest": f"sha256:{'1' * 64}",
    "image.pullPolicy": "Always",
    "imagePullSecrets": [{"name": "pull"}],
    "metrics.podMonitor.interval": "7s",
    "metrics.prometheusRule.stalledFor": "7m",
    "metrics.serviceMonitor.interval": "7s",
    "minio.image.digest": f"sha256:{'1' * 64}",
    "minio.image.pullPolicy": "Always",
    "namespaces": ["vision"],
    "networkPolicy.apiServerPorts": [16443],
    "networkPolicy.generator.extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
    "networkPolicy.generator.namespaces": ["vision"],
    "networkPolicy.generator.storePorts": [8333],
    "networkPolicy.generator.storeTo": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
    "networkPolicy.metricsFrom": [{"podSelector": {}}],
    "settings.logFormat": "text",
    "settings.podTemplatePolicy": "any",
    "store.addressingStyle": "virtual",
    "store.endpoint": "https://other.example",
    "tolerations": [{"operator": "Exists"}],
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway"}],
}
"""Another value, for fields where negation, one more, or any text is not valid."""


def leaves(values: Json, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value's path and default; a map that users fill is one value."""
    for key, value in values.items():
        if isinstance(value, dict) and value and not key.endswith(("labels", "resources")):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def another(path: str, default: Any) -> Any:
    match default:
        case _ if path in OTHERS:
            return OTHERS[path]
        case bool():
            return not default
        case int():
            return default + 17
        case dict():
            return {"limits": {"memory": "77Mi"}} if path.endswith("resources") else {"extra": "label"}
        case str():
            return "changed"
    raise AssertionError(f"say in OTHERS what else {path} can be")


def at(path: str, value: Any) -> Json:
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


@pytest.mark.parametrize(("path", "default"), list(leaves(VALUES)), ids=[path for path, _ in leaves(VALUES)])
def test_every_value_has_an_effect(path: str, default: Any) -> None:
    change = at(path, another(path, default))
    if path == "serviceAccount.create":
        change = merged(change, {"serviceAccount": {"name": "given"}})

    assert any(shows(change, number) for number in range(len(CONTEXTS))), f"{path} changes nothing"


def shows(change: Json, number: int) -> bool:
    """Whether the change has an effect in the context of this number."""
    try:
        return render(merged(CONTEXTS[number], change)) != unchanged(number)
    except HelmError:  # it needs another value, which another context has
        return False


@cache
def unchanged(number: int) -> list[Json]:
    return render(CONTEXTS[number])


def test_the_schema_has_every_value_and_no_other() -> None:
    def known(schema: Json, values: Json, path: str) -> Iterator[str]:
        properties = schema.get("properties")
        if properties is None:
            return
        assert schema["additionalProperties"] is False, path
        for key, value in values.items():
            assert key in properties, f"{path}{key} is not in values.schema.json"
            if isinstance(value, dict):
                yield from known(properties[key], value, f"{path}{key}.")
        if path != "settings.":  # whose values are the operator's own defaults
            yield from (f"{path}{key}" for key in properties.keys() - values.keys())

    assert list(known(SCHEMA, VALUES, "")) == ["global"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replica": 3}, "replica"),
        ({"replicas": "two"}, "replicas"),
        ({"image": {"tag": "latest"}}, "tag"),
        ({"image": {"digest": "sha256:abc"}}, "digest"),
        ({"namespaces": ["Vision"]}, "namespaces"),
        ({"settings": {"jobTTL": 5}}, "jobTTL"),
        ({"settings": {"jobTtl": "long"}}, "jobTtl"),
        ({"settings": {"jobTtl": -1}}, "jobTtl"),
        ({"settings": {"logLevel": "LOUD"}}, "logLevel"),
        ({"settings": {"leaseName": "mine"}}, "leaseName"),
        ({"store": {"endpoint": "minio:9000"}}, "endpoint"),
        ({"networkPolicy": {"apiServerPorts": []}}, "apiServerPorts"),
        ({"admissionPolicy": {"actions": ["Refuse"]}}, "actions"),
    ],
)
def test_invalid_values_are_refused_before_anything_is_installed(values: Json, words: str) -> None:
    with pytest.raises(HelmError, match=words):
        render(values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"store": {"endpoint": "https://s3.example"}}, "store.bucket: name the bucket of store.endpoint"),
        ({"store": {"bucket": "data"}}, "store.endpoint: name the endpoint of the default store, or leave"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name: name the service account"),
    ],
)
def test_values_that_need_others_name_them(values: Json, words: str) -> None:
    with pytest.raises(HelmError, match=words):
        render(values)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_passes_helm_lint(variant: str) -> None:
    said = helm("lint", CHART, "--strict", "--namespace", "diffugen-system", values=VARIANTS[variant])

    assert "0 chart(s) failed" in said
    assert "WARNING" not in said
