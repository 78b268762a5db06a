"""SIGKILL of the operator at every action boundary of a whole run: before and after each of its writes.

Four datasets side by side, each with its own operator that is started again after each death: a run from nothing to
Ready; one that is suspended, resumed and edited during the run; one whose pods wait for a node meanwhile; and one whose
operator dies at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.cluster.faults.runs import SEED, TINY, MortalOperator, assert_ended_right, is_ready, seen
from tests.cluster.world import Json, World, merged

pytestmark = pytest.mark.timeout(2400)

SLOW = {
    "stages": [{"name": "base", "txt2img": {"model": "builtin://shapes", "steps": 60, "guidanceScale": 3}}],
    "prompts": {"samplesPerPrompt": 16},
}
"""A first spec, large enough that it is edited before it is complete."""


NOWHERE = merged(TINY, {"run": {"podTemplate": {"spec": {"nodeSelector": {"room": "none"}}}}})
"""A spec whose pods fit no node."""


@pytest.fixture(scope="module")
def survivors(
    new_world: Callable[[str], World], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, World]]:
    """The four, when all of them are Ready."""
    folder = tmp_path_factory.mktemp("crashes")
    worlds = {name: new_world(name) for name in LIVES}
    for name, world in worlds.items():
        odds = 0.25 if name == "random" else 0
        world.operator = MortalOperator(world.operator, folder / name, odds=odds, seed=SEED)
        world.operator.start()
    with ThreadPoolExecutor() as pool:
        lives = [pool.submit(life, worlds[name]) for name, life in LIVES.items()]
        for life in lives:
            life.result()
    yield worlds
    for world in worlds.values():
        world.operator.end()
        world.kubectl("delete", "namespace", world.namespace, "--wait=false")


def straight(world: World) -> None:
    world.apply(**TINY)
    seen(world, "Ready", is_ready)


def eventful(world: World) -> None:
    world.apply(**SLOW)
    seen(world, "drawing", is_drawing)
    world.apply(**SLOW, suspend=True)
    seen(world, "suspended", lambda dataset: world.condition("Suspended", dataset)["status"] == "True")
    world.apply(**SLOW)
    seen(world, "drawing again", is_drawing)
    world.apply(**TINY)
    seen(world, "Ready", is_ready)


def waiting(world: World) -> None:
    world.apply(**NOWHERE)
    seen(world, "in line for a node", partial(is_in_line, world))
    world.apply(**NOWHERE, suspend=True)
    seen(world, "suspended", lambda dataset: world.condition("Suspended", dataset)["status"] == "True")
    world.apply(**NOWHERE)
    resumed = seen(world, "in line again", partial(is_in_line, world))
    assert resumed["status"]["attempt"] == 1, "its Job was made of this very spec"
    world.apply(**TINY)
    seen(world, "Ready", is_ready)


LIVES = {"straight": straight, "eventful": eventful, "waiting": waiting, "random": straight}


def is_in_line(world: World, dataset: Json) -> bool:
    queued = world.condition("Queued", dataset)
    return queued["status"] == "True" and queued["observedGeneration"] == dataset["metadata"]["generation"]


def is_drawing(dataset: Json) -> bool:
    status = dataset.get("status", {})
    seen = status.get("observedGeneration") == dataset["metadata"]["generation"]
    return seen and status["summary"]["reason"] == "Drawing"


@pytest.mark.parametrize(("name", "attempts"), [("straight", 1), ("eventful", 2), ("waiting", 2), ("random", 1)])
def test_each_step_and_attempt_has_one_job_without_orphans_and_with_the_same_content(
    survivors: dict[str, World], undisturbed: str, name: str, attempts: int
) -> None:
    assert_ended_right(survivors[name], undisturbed, attempts=attempts)


def test_the_operator_died_before_and_after_every_write(survivors: dict[str, World]) -> None:
    deaths = deaths_of(survivors["straight"])

    assert len(deaths) == len(set(deaths)) >= 2 * 9  # tests/operator/reconcile/test_crashes.py lists the nine
    for moment in ("before", "after"):
        kinds = {kind(death) for death in deaths if death.startswith(moment)}
        assert {"PATCH status", "POST configmaps", "POST jobs plan", "POST jobs base", "POST jobs publish"} <= kinds


def test_the_operator_died_while_suspending_resuming_and_stopping_a_former_run(survivors: dict[str, World]) -> None:
    deaths = deaths_of(survivors["eventful"])

    for moment in ("before", "after"):
        kinds = {kind(death) for death in deaths if death.startswith(moment)}
        assert {"PATCH jobs", "DELETE jobs", "DELETE configmaps"} <= kinds


def test_the_operator_died_while_resuming_a_run_that_then_waited_for_a_node(survivors: dict[str, World]) -> None:
    deaths = [death for death in deaths_of(survivors["waiting"]) if kind(death) == "PATCH jobs"]

    assert [death.split(" ")[0] for death in deaths] == ["before", "after"] * 2, "to suspend, and to resume"


def test_the_operator_died_at_random(survivors: dict[str, World]) -> None:
    assert deaths_of(survivors["random"])


def deaths_of(world: World) -> list[str]:
    assert isinstance(world.operator, MortalOperator)
    return world.operator.deaths()


def kind(death: str) -> str:
    """Return the kind of write at this boundary, such as "POST jobs plan"."""
    _, method, path, *name = death.split(" ")
    parts = path.split("/")
    if parts[-1] == "status":
        return f"{method} status"
    if method == "POST" and parts[-1] == "jobs":
        return f"{method} jobs {name[0].split('-')[1]}"
    return f"{method} {parts[-1] if method == 'POST' else parts[-2]}"
