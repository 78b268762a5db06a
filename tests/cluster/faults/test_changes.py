"""Changes by a user while a step is held in the middle of its work: after a suspension or an edit, the run ends as if
the last spec had been applied from the start.
"""

from __future__ import annotations

import pytest

from tests.cluster.faults.runs import TINY, assert_ended_right, is_ready, seen
from tests.cluster.faults.store_proxy import HoldingStore
from tests.cluster.pods import eventually
from tests.cluster.world import Json, World, merged

PLANNING, DRAWING, PUBLISHING = "PUT plan.json", "PUT recipe.json", "PUT dataset.json"
"""For each step, the request at which it is held."""

STEPS = {PLANNING: "plan", DRAWING: "stage", PUBLISHING: "publish"}

OTHERWISE = merged(TINY, {"seed": 7})
"""The spec before the edit; none of its images is in the later spec."""


def in_steps(*places: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", places, ids=STEPS.__getitem__)


def begun(world: World, store: HoldingStore, place: str, spec: Json) -> Json:
    """Apply this spec with that store and wait until a pod is held at this request; returns the store's changes."""
    by_store = {"output": {"s3": {"endpoint": store.url}}}
    world.apply(**merged(spec, by_store))
    seen(world, f"at {place}", lambda _: place in store.asked)
    return by_store


def wait_suspended(world: World) -> Json:
    def is_suspended(dataset: Json) -> bool:
        condition = world.condition("Suspended", dataset)
        return (condition["status"], condition.get("observedGeneration")) == ("True", dataset["metadata"]["generation"])

    return seen(world, "suspended", is_suspended)


def suspended_steps(world: World) -> list[str]:
    return [job["metadata"]["labels"]["diffugen.dev/step"] for job in world.jobs() if job["spec"]["suspend"]]


def works(world: World) -> bool:
    """Whether any pod exists that has not ended."""
    return any(pod["status"]["phase"] in {"Pending", "Running"} for pod in world.pods())


@in_steps(PLANNING, DRAWING, PUBLISHING)
def test_suspended_and_resumed(running: World, undisturbed: str, place: str) -> None:
    with HoldingStore(running.cluster.minio.endpoint, held=[place]) as store:
        by_store = begun(running, store, place, TINY)

        running.apply(**merged(TINY, by_store), suspend=True)
        wait_suspended(running)
        assert suspended_steps(running) == [STEPS[place]]
        store.let_go(place)
        eventually(lambda: not works(running))
        running.apply(**merged(TINY, by_store))

        seen(running, "Ready", is_ready)
    assert_ended_right(running, undisturbed)


@in_steps(PLANNING, DRAWING, PUBLISHING)
def test_edited(running: World, undisturbed: str, place: str) -> None:
    with HoldingStore(running.cluster.minio.endpoint, held=[place]) as store:
        by_store = begun(running, store, place, OTHERWISE)

        running.apply(**merged(TINY, by_store))
        seen(running, "at work on the edit", lambda dataset: dataset["status"]["attempt"] == 2)
        store.let_go(place)

        seen(running, "Ready", is_ready)
    assert_ended_right(running, undisturbed, attempts=2)


def test_edited_while_suspended(running: World, undisturbed: str) -> None:
    with HoldingStore(running.cluster.minio.endpoint, held=[DRAWING]) as store:
        by_store = begun(running, store, DRAWING, OTHERWISE)
        running.apply(**merged(OTHERWISE, by_store), suspend=True)
        wait_suspended(running)
        store.let_go(DRAWING)

        running.apply(**merged(TINY, by_store), suspend=True)
        wait_suspended(running)
        eventually(lambda: not works(running))
        assert running.current() is None
        running.apply(**merged(TINY, by_store))

        seen(running, "Ready", is_ready)
    assert_ended_right(running, undisturbed, attempts=2)


def test_suspended_while_stalled(running: World, undisturbed: str) -> None:
    unknown = merged(TINY, {"stages": [{"name": "base", "txt2img": {"model": "builtin://nope"}}]})
    running.apply(**unknown)
    running.wait_stalled("UnknownModel")

    running.apply(**unknown, suspend=True)
    suspended = wait_suspended(running)
    assert running.condition("Stalled", suspended)["reason"] == "UnknownModel", "what is to be fixed is still said"
    running.apply(**TINY)

    seen(running, "Ready", is_ready)
    assert_ended_right(running, undisturbed, attempts=2)
