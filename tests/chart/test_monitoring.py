"""Alerts and dashboard query only metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from diffugen_api.contract import ShardCounts
from diffugen_generator.telemetry.metrics import ShardMetrics
from diffugen_operator.telemetry.metrics import Metrics
from tests.chart.helm import NAMESPACE, RELEASE, VARIANTS, one, render

FROM_PROMETHEUS = {"namespace", "pod", "service", "le", "job", "instance"}
_SERIES = re.compile(r"(diffugen_[a-z0-9_]+)\s*(?:\{([^}]*)\})?")
_GROUPING = re.compile(r"\bby \(([^)]*)\)")


def exported() -> dict[str, set[str]]:
    """Return each series that operator and generator serve, with its labels."""
    operator, shard = Metrics(), ShardMetrics()
    operator.reconciles.labels("ok").inc()
    operator.status_writes.labels("progress").inc()
    operator.count_request("GET", "200")
    operator.count_watch_restart("jobs", "silent")
    operator.show_objects("pods", 1)
    operator.show_datasets("Stalled", 1)
    shard.update(ShardCounts(total=4, drawn=1))
    found: dict[str, set[str]] = {}
    for page in (operator.page(), generate_latest(shard.registry)):
        for family in text_string_to_metric_families(page.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    # These exist while a shard runs and on a GPU; their names are in the module that serves them.
    return {**found, "diffugen_part_seconds_total": {"part"}, "diffugen_gpu_memory_bytes": {"kind"}}


def expressions() -> Iterator[str]:
    manifests = render(VARIANTS["everything for Prometheus and Grafana"])
    for group in one(manifests, "PrometheusRule")["spec"]["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    dashboard = json.loads(one(manifests, "ConfigMap")["data"]["diffugen.json"])
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def labels_of(selector: str) -> set[str]:
    return {re.split(r"[=!~]", part, maxsplit=1)[0].strip() for part in selector.split(",") if part.strip()}


def test_every_queried_series_is_exported_with_its_labels() -> None:
    known: Mapping[str, set[str]] = exported()

    asked = list(expressions())
    assert len(asked) > 20
    for expression in asked:
        series = _SERIES.findall(expression)
        assert series, expression
        for name, selector in series:
            assert name in known, f"{name} in {expression}"
            assert labels_of(selector) <= known[name] | FROM_PROMETHEUS, expression
        for grouping in _GROUPING.findall(expression):
            wanted = {label.strip() for label in grouping.split(",")}
            assert wanted <= set().union(*(known[name] for name, _ in series)) | FROM_PROMETHEUS, expression
        assert expression.count("(") == expression.count(")")
        assert expression.count("{") == expression.count("}")


def test_alerts_select_this_installation_and_name_an_action() -> None:
    manifests = render(VARIANTS["everything for Prometheus and Grafana"])
    rules = [rule for group in one(manifests, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]

    for rule in rules:
        for selector in re.findall(r"diffugen_operator_[a-z_]+\{([^}]*)\}", rule["expr"]):
            assert f'namespace="{NAMESPACE}",service="{RELEASE}"' in selector
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"].endswith(".")
        assert len(rule["annotations"]["description"]) > 20
    assert {rule["alert"] for rule in rules} == {
        "DiffugenDatasetsStalled",
        "DiffugenReconcilesFail",
        "DiffugenNoLeader",
        "DiffugenSeveralLeaders",
        "DiffugenWatchesBreak",
        "DiffugenQueueOld",
    }


def test_the_service_monitor_reaches_the_probes_port() -> None:
    manifests = render(VARIANTS["everything for Prometheus and Grafana"])
    monitor, service = one(manifests, "ServiceMonitor"), one(manifests, "Service")
    (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]

    (endpoint,), (port,) = monitor["spec"]["endpoints"], service["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    assert port["targetPort"] in {p["name"] for p in container["ports"]}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


def test_panels_fit_on_the_dashboard_and_have_unique_ids() -> None:
    manifests = render(VARIANTS["everything for Prometheus and Grafana"])
    panels = json.loads(one(manifests, "ConfigMap")["data"]["diffugen.json"])["panels"]

    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = {
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    }
    assert len(cells) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in panels), "panels overlap"
    assert max(x for x, _ in cells) < 24
