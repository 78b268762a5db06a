"""The metrics for Prometheus: everything that is documented, and no dataset name in a label."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from diffugen_api.v1alpha1 import LabeledDatasetStatus
from diffugen_operator.kube.cache import Resource
from diffugen_operator.policy.announcements import images_between
from diffugen_operator.process import Operator
from diffugen_operator.settings import Settings
from tests.operator.lives import a_life, a_plan, a_raw_dataset
from tests.operator.worlds import World

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
OBJECT_LABELS = {"dataset", "namespace", "name", "job", "pod", "uid", "revision", "instance"}


def documented() -> dict[str, set[str]]:
    """Return the metrics of the documentation, with their labels."""
    rows = re.findall(r"^\| `(diffugen_operator_\w+)(?:\{([^}]*)\})?`", OPERATIONS.read_text(), re.MULTILINE)
    return {name: set(labels.split(",")) - {""} for name, labels in rows}


def served(page: str) -> dict[str, set[str]]:
    """Return the metrics of a page, with their labels; a histogram by its name."""
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(diffugen_operator_\w+)(?:\{([^}]*)\})? ", page, re.MULTILINE):
        family = re.sub(r"_(bucket|sum|count|created)$", "", name)
        names = set(re.findall(r'(\w+)="', labels)) - {"le"}
        if not name.endswith("_created"):
            found[family] = found.get(family, set()) | names
    return found


def an_operator() -> Operator:
    """Return an operator in which every metric has a value."""
    operator = Operator(Settings(lease_namespace=""))
    metrics = operator._metrics
    metrics.count_request("GET", "200")
    metrics.count_watch_restart("jobs", "ended")
    for result in ("ok", "waiting", "conflict", "error"):
        metrics.reconciles.labels(result).inc()
    metrics.reconcile_seconds.observe(0.02)
    for kind in ("transition", "progress"):
        metrics.status_writes.labels(kind).inc()
    return operator


def test_the_documentation_has_every_metric_with_its_labels() -> None:
    assert served(an_operator()._page().decode()) == documented()


def test_no_label_names_an_object() -> None:
    labels = set().union(*served(an_operator()._page().decode()).values())

    assert labels == {"result", "verb", "code", "kind", "resource", "reason", "condition"}
    assert not labels & OBJECT_LABELS


def test_queue_leader_and_cache_are_read_at_each_scrape() -> None:
    operator = an_operator()
    stalled = {"type": "Stalled", "status": "True"}
    for number in range(3):
        raw = a_raw_dataset(name=f"d{number}")
        raw["status"] = {"conditions": [{"type": "Ready", "status": "False"}, *([stalled] if number else [])]}
        operator._cache.put(Resource.DATASETS, raw)
        operator._queue.add(operator._cache.datasets()[-1])

    page = operator._page().decode()

    assert "diffugen_operator_queue_depth 3.0" in page
    assert "diffugen_operator_leader 1.0" in page, "without a Lease there is one, and it leads"
    assert 'diffugen_operator_objects{resource="labeleddatasets"} 3.0' in page
    assert 'diffugen_operator_datasets{condition="Stalled"} 2.0' in page
    assert 'diffugen_operator_datasets{condition="Ready"} 0.0' in page
    assert float(re.findall(r"^diffugen_operator_queue_age_seconds (\S+)", page, re.MULTILINE)[0]) >= 0


def test_a_standby_does_not_lead() -> None:
    operator = Operator(Settings(lease_namespace="diffugen-system"))

    assert "diffugen_operator_leader 0.0" in operator._page().decode()


@pytest.mark.parametrize(("gpu", "images"), [(True, [0, 0, 6, 10, 0]), (False, [0, 0, 0, 0, 0])])
def test_images_are_counted_once_and_relabeled_ones_are_not(gpu: bool, images: list[int]) -> None:
    life = a_life().settle()
    seen: list[LabeledDatasetStatus] = [life.status]
    life.plan_ends(a_plan("base", total=24, reused=8, shards=2, gpu=gpu)).settle()
    seen.append(life.status)
    for change in (
        lambda: life.pod_runs("base", "0", total=8, done=6),
        lambda: life.job_completes("base"),
        life.publish_ends,
    ):
        change()
        seen.append(life.settle().status)

    assert [images_between(old, new) for old, new in zip(seen[:1] + seen, seen, strict=False)] == images


async def test_transitions_and_progress_are_counted_apart() -> None:
    world = World()
    await world.turn(3)
    world.plan_ends()
    await world.turn(2)
    world.pod_is("stage", "Running", {"running": {}})
    for done in (0, 2, 4):
        world.pods.done = done
        world.seconds += 30
        await world.turn()

    metrics = world.reconciler._metrics
    kinds = {kind: metrics.status_writes.labels(kind)._value.get() for kind in ("transition", "progress")}
    assert kinds["transition"] == 2, "the begin, and the plan with the stage"
    assert kinds["progress"] >= 2
    assert metrics.images._value.get() == 4
