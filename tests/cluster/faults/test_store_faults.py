"""A store that is stopped, slow, failing, forbidding, or cuts uploads, in each phase of a run: plan, stage, publish.

Five datasets side by side, each with a store with another fault: the fault begins with a phase and ends when it had an
effect. All but one recover by themselves; a store that forbids access must be fixed by a person, and the status says
how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from tests.cluster.faults.runs import TINY, assert_ended_right, is_ready, seen
from tests.cluster.faults.store_proxy import Mood, StoreProxy
from tests.cluster.world import Json, World, merged

pytestmark = pytest.mark.timeout(2400)

FELT = 3
"""How many requests get the fault before it ends, where the status does not show it."""


@pytest.fixture(scope="module")
def survivors(new_world: Callable[[str], World]) -> Iterator[dict[Mood, tuple[World, StoreProxy]]]:
    """The worlds and their stores, when all datasets are Ready."""
    moods = [mood for mood in Mood if mood is not Mood.WELL]
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        found: dict[Mood, tuple[World, StoreProxy]] = {}
        for mood in moods:
            world = new_world(mood.name.lower())
            found[mood] = world, stack.enter_context(StoreProxy(world.cluster.minio.endpoint, shards=2))
            world.operator.start()
            stack.callback(world.operator.end)
        lives = [pool.submit(forbidden if m is Mood.FORBIDDING else recovered, *found[m], m) for m in moods]
        for life in lives:
            life.result()
        yield found
        for world, _ in found.values():
            world.kubectl("delete", "namespace", world.namespace, "--wait=false")


def recovered(world: World, store: StoreProxy, mood: Mood) -> None:
    """Apply the fault in each phase, without any action of a user."""

    def felt(step: str, dataset: Json) -> bool:
        if mood in {Mood.STOPPED, Mood.ILL}:
            return dataset.get("status", {}).get("summary", {}).get("stage") == step and is_told(world, dataset)
        return store.troubled >= FELT

    store.before_publish = mood
    begins = {"planning": applied_with(world, store, mood), "base": planned, "publishing": published_next(store)}
    for step, begun in begins.items():
        seen(world, f"at {step}", begun)
        store.fall(mood)
        seen(world, f"feeling at {step} a store that is {mood.value}", partial(felt, step))
        store.fall(Mood.WELL)
    seen(world, "Ready", is_ready)


def forbidden(world: World, store: StoreProxy, mood: Mood) -> None:
    """Fix the store in each phase, and ask for a retry."""
    store.before_publish = mood
    for number, begun in enumerate((applied_with(world, store, mood), planned, published_next(store)), start=1):
        seen(world, "in the next phase", begun)
        store.fall(mood)
        message = world.wait_stalled("StoreCredentialsRefused")
        assert "spec.output.s3" in message
        assert "valid ones into the Secret of spec.output.s3.secretRef" in message
        store.fall(Mood.WELL)
        world.annotate(f"diffugen.dev/retry-requested-at={number}")
        seen(world, "tried again", partial(is_attempt, number + 1))
    seen(world, "Ready", is_ready)


def applied_with(world: World, store: StoreProxy, mood: Mood) -> Callable[[Json], bool]:
    store.fall(mood)
    world.apply(**merged(TINY, {"output": {"s3": {"endpoint": store.url}}}))
    return lambda _: True


def is_attempt(number: int, dataset: Json) -> bool:
    return bool(dataset["status"]["attempt"] == number)


def planned(dataset: Json) -> bool:
    return bool(dataset["status"].get("planned"))


def published_next(store: StoreProxy) -> Callable[[Json], bool]:
    return lambda _: store.mood is store.before_publish


def is_told(world: World, dataset: Json) -> bool:
    return bool(world.condition("Ready", dataset)["reason"] == "StoreUnreachable")


@pytest.mark.parametrize("mood", [Mood.STOPPED, Mood.SLOW, Mood.ILL, Mood.SHORT], ids=lambda mood: mood.value)
def test_the_run_recovers_by_itself_and_ends_correctly(
    survivors: dict[Mood, tuple[World, StoreProxy]], undisturbed: str, mood: Mood
) -> None:
    world, store = survivors[mood]

    assert [told for told, _ in store.spells] == [mood.value] * 3, "one in each phase"
    if mood is not Mood.STOPPED:  # a port without a server counts nothing
        assert all(troubled >= 1 for _, troubled in store.spells)
    assert_ended_right(world, undisturbed)


def test_forbidden_access_is_reported_with_what_to_do_and_the_run_continues_after_a_retry(
    survivors: dict[Mood, tuple[World, StoreProxy]], undisturbed: str
) -> None:
    world, store = survivors[Mood.FORBIDDING]

    assert len(store.spells) == 3
    # The last attempt found all images in the store: it had no stage to run.
    assert_ended_right(world, undisturbed, attempts=4, steps=("plan", "publish"))
