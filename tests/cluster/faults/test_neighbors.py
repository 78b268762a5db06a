"""What others do to the operator's objects and requests, at random from a seed: every run ends as if undisturbed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffugen_api.v1alpha1 import StageStatus
from diffugen_operator.manifests import jobs
from tests.cluster.faults.api_proxy import ExpiringApi
from tests.cluster.faults.runs import QUICK, TINY, assert_ended_right, is_ready, seen
from tests.cluster.faults.test_api_faults import operator_behind
from tests.cluster.test_planted import run_plan_of
from tests.cluster.world import Json, World


@pytest.fixture
def operated(world: World) -> Iterator[World]:
    """The world; its operator and namespace are deleted in the end."""
    world.operator.environment = dict(QUICK)
    yield world
    world.operator.end()
    world.kubectl("delete", "namespace", world.namespace, "--wait=false")


def test_logins_that_end_early_under_load_delay_a_run_and_nothing_else(
    operated: World, tmp_path: Path, seed: int, undisturbed: str
) -> None:
    world = operated
    with ExpiringApi(world.cluster.operator_kubeconfig, seed=seed) as api:
        world.operator = operator_behind(api, world, tmp_path / "kubeconfig")
        world.operator.start()
        for number in range(20):  # They only wait, but each has its statuses and its Event.
            manifest = world.manifest(suspend=True, seed=number)
            world.cluster.apply({**manifest, "metadata": {**manifest["metadata"], "name": f"other-{number}"}})
        world.apply(**TINY)
        seen(world, "Ready", is_ready)

        assert set(api.FEW) <= set(api.refused), dict(api.refused)
        assert_ended_right(world, undisturbed)
        seen(world, "all suspended", lambda _: len([d for d in world.items("lds") if is_suspended(world, d)]) == 20)


def is_suspended(world: World, dataset: Json) -> bool:
    return bool(world.condition("Suspended", dataset)["status"] == "True")


def webhook(world: World) -> Json:
    """Return a webhook whose server is down: no Job of this namespace can be created."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": world.namespace},
        "webhooks": [
            {
                "name": "jobs.example.com",
                "clientConfig": {"url": "https://127.0.0.1:1/jobs"},
                "rules": [
                    {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
                ],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 1,
            }
        ],
    }


def test_a_webhook_that_comes_and_goes_delays_a_run_and_is_named(operated: World, seed: int, undisturbed: str) -> None:
    world, chance = operated, random.Random(str(seed))

    def not_created(dataset: Json) -> bool:
        condition = world.condition("Reconciling", dataset)
        return condition["reason"] == "JobNotCreated" and "jobs.example.com" in condition["message"]

    world.cluster.apply(webhook(world))
    try:
        world.operator.start()
        world.apply(**TINY)
        seen(world, "JobNotCreated", not_created)
        for _ in range(4):
            world.kubectl("delete", "validatingwebhookconfiguration", world.namespace)
            time.sleep(chance.uniform(0, 4))
            world.cluster.apply(webhook(world))
            time.sleep(chance.uniform(0, 4))
    finally:
        world.kubectl("delete", "validatingwebhookconfiguration", world.namespace)
    seen(world, "Ready", is_ready)

    assert_ended_right(world, undisturbed)


def planted(world: World, dataset: Json, manifest: Json, chance: random.Random) -> Json:
    """Return an object under the name of one of the coming run's, with another content."""
    run = run_plan_of(world, dataset, manifest, attempt=dataset["status"]["attempt"])
    order, plan = jobs.work_order(run), jobs.plan_job(run)
    stage = jobs.stage_job(run, StageStatus(name="base", kind="txt2img", shards={"total": 2}), 1)  # type: ignore[arg-type]
    text = order["data"]["order.json"]
    wrong = [{**order, "data": {"order.json": text.replace('"shapes"', '"another"')}}, {**order, "immutable": False}]
    for job in (plan, stage):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        container["command"] = ["sh", "-c", "sleep 600"]
        container["env"] = [each for each in container["env"] if each["name"] != "DIFFUGEN_ORDER_SHA256"]
        job["spec"]["suspend"] = True
        wrong.append(job)
    return chance.choice(wrong)


def test_a_planted_object_of_the_coming_run_is_named_and_never_used(
    operated: World, seed: int, undisturbed: str
) -> None:
    world, chance = operated, random.Random(str(seed))
    world.operator.start()
    manifest = world.apply(**TINY, suspend=True)
    dataset = seen(world, "suspended", lambda found: is_suspended(world, found))
    fake = planted(world, dataset, manifest, chance)
    kind, name = fake["kind"].lower(), fake["metadata"]["name"]
    print(f"planted: {kind} {name}")
    world.cluster.apply(fake)

    world.apply(**TINY)
    message = world.wait_stalled("NameConflict")
    assert name in message
    world.kubectl("delete", kind, name, "-n", world.namespace)
    world.annotate("diffugen.dev/retry-requested-at=now")
    seen(world, "Ready", is_ready)

    assert world.get()["status"]["dataset"]["manifestSHA256"] == undisturbed
