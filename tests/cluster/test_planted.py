"""Objects that somebody else writes under names of the operator, on a real API server."""

from __future__ import annotations

import io

from diffugen_api.plan import revision_of, store_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_operator.manifests import jobs, names
from diffugen_operator.manifests.jobs import RunPlan
from diffugen_operator.manifests.names import RunKey
from diffugen_operator.settings import Settings
from tests.cluster.pods import eventually
from tests.cluster.test_kills import slow_stage
from tests.cluster.world import Json, World


def run_plan_of(world: World, dataset: Json, manifest: Json, *, attempt: int) -> RunPlan:
    """Return what the operator makes the objects of this attempt from."""
    spec = LabeledDatasetSpec.model_validate(manifest["spec"])
    key = RunKey(
        uid=dataset["metadata"]["uid"],
        namespace=world.namespace,
        name="shapes",
        revision=revision_of(spec),
        store=store_of(spec),
        attempt=attempt,
    )
    return RunPlan(key=key, spec=spec, settings=Settings())


def test_a_planted_clean_up_order_deletes_nothing_of_another_dataset(running: World) -> None:
    """The planted ConfigMap equals ours in everything that can be known before: name, labels, owner, immutability."""
    world = running
    manifest = world.apply(suspend=True, deletionPolicy="Delete")
    dataset = world.wait("suspended", lambda d: world.condition("Suspended", d)["status"] == "True")
    treasure = f"datasets/{world.namespace}/another/current.json"
    world.store.put_object(world.bucket, treasure, io.BytesIO(b"{}"), 2)
    run = run_plan_of(world, dataset, manifest, attempt=dataset["status"]["attempt"] + 1)
    order = jobs.clean_up_work_order(run)
    assert order["metadata"]["name"] == names.work_order_name(run.key)
    text = order["data"]["order.json"].replace('"name":"shapes"', '"name":"another"', 1)
    assert text != order["data"]["order.json"]
    world.cluster.apply({**order, "data": {"order.json": text}})

    world.kubectl("delete", "lds", "shapes", "-n", world.namespace, "--wait=false")
    message = world.wait_stalled("NameConflict")

    assert order["metadata"]["name"] in message
    assert world.jobs("delete") == [], "no pod reads it"
    world.store.stat_object(world.bucket, treasure)
    world.kubectl("delete", "configmap", order["metadata"]["name"], "-n", world.namespace)
    world.annotate("diffugen.dev/retry-requested-at=now")
    eventually(lambda: not world.items("lds"))
    world.store.stat_object(world.bucket, treasure)


def test_a_job_that_somebody_else_suspends_is_not_resumed_against_them(running: World) -> None:
    world = running
    two = {"templates": ["a red {object}"], "samplesPerPrompt": 1}
    world.apply(prompts=two, stages=[slow_stage()])  # the Job of the plan could end before it is suspended
    (job,) = eventually(lambda: world.jobs("stage"))
    suspend = '{"spec": {"suspend": true}}'
    name = job["metadata"]["name"]
    world.kubectl("patch", "job", name, "-n", world.namespace, "--type=merge", "-p", suspend)

    held = world.wait("held", lambda d: world.condition("Queued", d)["reason"] == "JobHeld")
    for number in range(3):
        world.annotate(f"look={number}")
    patches = [
        event
        for event in world.cluster.writes_of("operator")
        if event["objectRef"].get("name") == name and event["verb"] == "patch"
    ]

    assert "is suspended by kubectl-patch" in world.condition("Queued", held)["message"]
    assert patches == []
    world.kubectl("patch", "job", name, "-n", world.namespace, "--type=merge", "-p", '{"spec": {"suspend": false}}')
    world.wait("resumed", lambda d: world.condition("Queued", d)["reason"] != "JobHeld")
    world.wait_ready()
