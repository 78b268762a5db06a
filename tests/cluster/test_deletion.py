"""Deletion: with Retain it goes at once and the store stays; with Delete both go, or an Event reports it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.cluster.pods import eventually
from tests.cluster.test_kills import drawing, planning, publishing, slow_stage
from tests.cluster.world import Json, World

SLOWLY = {"run": {"samplesPerShard": 2, "parallelism": 2}, "stages": [slow_stage()]}
QUICKLY = {"prompts": {"templates": ["a red {object}"], "samplesPerPrompt": 1}}
DELETE = {"deletionPolicy": "Delete"}


def gone(world: World, what: str = "lds") -> bool:
    return not world.items(what)


def wait_gone(world: World) -> None:
    end = time.monotonic() + 240
    while not gone(world):
        assert time.monotonic() < end, f"still there: {world.items('lds')}\n{world.operator_log()}"
        time.sleep(0.2)


def delete(world: World, *flags: str) -> None:
    world.kubectl("delete", "lds", "shapes", "-n", world.namespace, "--wait=false", *flags)


def events(world: World) -> set[str]:
    return {e["reason"] for e in world.items("events") if e["involvedObject"]["kind"] == "LabeledDataset"}


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
@pytest.mark.parametrize("phase", [planning, drawing, publishing], ids=lambda p: str(p.__name__))
def test_deleted_while_a_step_runs(running: World, phase: Callable[[World], bool], policy: str) -> None:
    running.apply(**(SLOWLY if phase is drawing else QUICKLY), deletionPolicy=policy)
    running.wait(phase.__name__, lambda _: phase(running))
    assert running.get()["metadata"].get("finalizers", []) == (["diffugen.dev/clean-up"] if policy == "Delete" else [])

    delete(running)
    wait_gone(running)

    if policy == "Delete":
        assert running.keys() == []
        eventually(lambda: {"CleaningUp", "CleanedUp"} <= events(running))
    elif phase is not planning:
        assert running.keys() != []
    eventually(lambda: gone(running, "jobs") and gone(running, "pods") and gone_orders(running))
    before = running.keys()
    time.sleep(2)
    assert running.keys() == before, "nobody writes any more"


def gone_orders(world: World) -> bool:
    return not [c for c in world.items("configmaps") if c["metadata"]["name"] != "kube-root-ca.crt"]


def test_deleted_at_rest_the_store_is_emptied_except_for_foreign_files(running: World) -> None:
    running.apply(**DELETE, **QUICKLY)
    running.wait_ready()
    assert running.get()["metadata"]["finalizers"] == ["diffugen.dev/clean-up"]
    running.write("notes.txt", b"mine")

    # In the foreground, as Argo CD deletes; and kubectl waits for the end.
    foreground = ("delete", "lds", "shapes", "-n", running.namespace, "--cascade=foreground", "--timeout=230s")
    running.cluster.kubectl(*foreground, timeout_s=240)

    assert gone(running)
    assert running.keys() == ["notes.txt"]
    denied = [
        f"{e['verb']} {e['requestURI']}"
        for e in running.cluster.audit_events("operator")
        if e.get("responseStatus", {}).get("code") == 403 and f"/namespaces/{running.namespace}/" in e["requestURI"]
    ]
    assert denied == [], "its rights are enough"


def test_deleted_while_suspended_or_stalled_or_without_the_operator(running: World) -> None:
    running.apply(**DELETE, run={"samplesPerShard": 2, "parallelism": 1})
    running.wait("drawing", lambda _: bool(running.drawn_at()))
    running.apply(**DELETE, run={"samplesPerShard": 2, "parallelism": 1}, suspend=True)
    running.wait("suspended", lambda d: running.condition("Suspended", d)["status"] == "True")
    delete(running)
    wait_gone(running)
    assert running.keys() == []

    running.apply(**DELETE, stages=[{"name": "base", "txt2img": {"model": "builtin://nope"}}])
    running.wait_stalled("UnknownModel")
    delete(running)
    wait_gone(running)
    assert running.keys() == []

    running.apply(**DELETE, **QUICKLY)
    running.wait_ready()
    running.operator.kill()
    delete(running)
    time.sleep(1)
    assert not gone(running), "the finalizer keeps it"
    running.operator.start()
    wait_gone(running)
    assert running.keys() == []


def test_the_policy_can_be_edited(running: World) -> None:
    def finalizers(wanted: list[str]) -> Callable[[Json], bool]:
        return lambda dataset: dataset["metadata"].get("finalizers", []) == wanted

    running.apply(**QUICKLY)
    running.wait("accepted", lambda d: d["status"]["observedGeneration"] == 1)
    assert "finalizers" not in running.get()["metadata"]
    running.apply(**QUICKLY, **DELETE)
    running.wait("kept", finalizers(["diffugen.dev/clean-up"]))
    running.apply(**QUICKLY)
    running.wait("let go", finalizers([]))
    running.apply(**QUICKLY, **DELETE)
    assert running.wait_ready()["status"]["attempt"] == 1

    # Files of other datasets are not deleted; and Retain, even then, removes the finalizer at once.
    running.write("plans/0123456789/plan.json", b'{"namespace": "vision", "name": "other"}')
    before = running.keys()
    delete(running)
    message = running.wait_stalled("NotThisDataset")
    assert "vision/other" in message
    assert "spec.deletionPolicy: Retain deletes" in message
    running.kubectl("patch", "lds", "shapes", "-n", running.namespace, "--type=merge", "-p", RETAIN)
    wait_gone(running)
    assert running.keys() == before


RETAIN = '{"spec": {"deletionPolicy": "Retain"}}'


def test_an_impossible_clean_up_ends_in_time_and_is_reported(world: World) -> None:
    world.operator.environment = {"DIFFUGEN_CLEAN_UP_TIMEOUT": "6"}
    world.operator.start()
    try:
        world.apply(**DELETE, output={"s3": {"secretRef": {"name": "short-lived"}}})
        world.wait("planning", lambda _: bool(world.jobs("plan")))
        began = time.monotonic()
        delete(world)
        wait_gone(world)
        assert time.monotonic() - began > 5
        eventually(lambda: "CleanUpAbandoned" in events(world))
        (said,) = [e["message"] for e in world.items("events") if e["reason"] == "CleanUpAbandoned"]
        assert "It did not end within 6 s." in said
        assert f"s3://{world.bucket}/datasets/{world.namespace}/shapes" in said
    finally:
        world.operator.end()
        world.kubectl("delete", "namespace", world.namespace, "--wait=false")


def test_a_namespace_is_deleted_with_all_its_objects(world: World) -> None:
    world.operator.environment = {"DIFFUGEN_TERMINATION_GRACE": "3"}
    world.operator.start()
    try:
        world.apply(**DELETE, **QUICKLY)
        world.wait("planning", lambda _: bool(world.jobs("plan")))

        world.kubectl("delete", "namespace", world.namespace, "--wait=false")

        line = f"namespace/{world.namespace}\n"
        eventually(lambda: line not in world.kubectl("get", "ns", "-o", "name"), within_s=300)
        assert "CleanUpAbandoned" in world.operator.log.read_text()
    finally:
        world.operator.end()


def test_a_dataset_created_again_under_its_name_reuses_the_store(running: World) -> None:
    running.apply(**QUICKLY)
    running.wait_ready()
    running.apply(**QUICKLY, quality={"minAreaFraction": 0.003})
    first = running.wait_ready()
    drawn = running.drawn_at()
    delete(running)
    wait_gone(running)

    running.apply(**QUICKLY, quality={"minAreaFraction": 0.003})
    second = running.wait_ready()

    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert running.drawn_at() == drawn, "nothing was drawn again"
    assert running.jobs("stage") == [], "nor asked for"
    assert second["status"]["stages"][0]["samples"]["reused"] == 2
    assert second["status"]["dataset"] == first["status"]["dataset"], "published when it was"
    assert second["status"]["history"] == first["status"]["history"] != []
