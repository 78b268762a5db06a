"""SIGKILL, to the operator in each phase and to a worker: no second Job, no lost work, the same content."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.world import Json, World

SHARDS = {"run": {"samplesPerShard": 2, "parallelism": 2}}


@pytest.fixture(scope="module")
def undisturbed(new_world: Any) -> Json:
    """The same dataset from an undisturbed run; its name and namespace are not in its content."""
    world: World = new_world("calm")
    world.operator.start()
    world.apply(**SHARDS)
    status: Json = world.wait_ready()["status"]
    world.operator.end()
    return status


def assert_same_outcome(world: World, undisturbed: Json) -> None:
    status = world.get()["status"]
    assert status["dataset"]["manifestSHA256"] == undisturbed["dataset"]["manifestSHA256"]
    steps = sorted(j["metadata"]["labels"]["diffugen.dev/step"] for j in world.jobs())
    assert steps == ["plan", "publish", "stage"], "one Job for each step, none twice"
    assert all(j["status"].get("succeeded") == j["spec"]["completions"] for j in world.jobs())


def planning(world: World) -> bool:
    return bool(world.jobs("plan"))


def drawing(world: World) -> bool:
    return any(p["status"]["phase"] == "Running" for p in world.pods("stage"))


def publishing(world: World) -> bool:
    return bool(world.jobs("publish"))


@pytest.mark.parametrize("phase", [planning, drawing, publishing], ids=lambda p: str(p.__name__))
def test_the_operator_is_killed_and_started_again(
    running: World, undisturbed: Json, phase: Callable[[World], bool]
) -> None:
    running.apply(**SHARDS)
    running.wait(phase.__name__, lambda _: phase(running))

    running.operator.kill()
    jobs = {j["metadata"]["uid"] for j in running.jobs()}
    running.operator.start()

    running.wait_ready()
    assert jobs <= {j["metadata"]["uid"] for j in running.jobs()}
    assert_same_outcome(running, undisturbed)


def test_a_run_that_ended_without_the_operator_is_not_repeated(running: World, undisturbed: Json) -> None:
    running.apply(**SHARDS)
    running.wait("publishing", lambda _: publishing(running))
    running.operator.kill()
    running.wait("published", lambda _: all(j["status"].get("succeeded") for j in running.jobs("publish")))

    running.operator.start()

    running.wait_ready()
    assert_same_outcome(running, undisturbed)


def test_after_a_worker_is_killed_only_the_missing_images_are_drawn(running: World, undisturbed: Json) -> None:
    running.apply(run={"samplesPerShard": 8, "parallelism": 1}, stages=[slow_stage()])
    running.wait("some pictures", lambda _: len(running.drawn_at()) >= 2)
    before = running.drawn_at()

    killed = kill_worker(running)

    assert killed
    running.wait_ready()
    after = running.drawn_at()
    assert len(after) == 8
    assert {key: after[key] for key in before} == before, "what was drawn stayed"
    (job,) = running.jobs("stage")
    assert job["status"].get("failed") == 1
    assert job["status"]["succeeded"] == 1


def slow_stage() -> Json:
    return {"name": "base", "txt2img": {"model": "builtin://shapes", "steps": 60, "guidanceScale": 3}}


def kill_worker(world: World, name: str = "") -> int:
    """SIGKILL the process of the stage's pod (of this name), which is the id of its container."""
    (pod,) = [p for p in world.pods("stage") if p["metadata"]["name"] == name or (not name and is_running(p))]
    scheme, _, process = pod["status"]["containerStatuses"][0]["containerID"].partition("://")
    assert scheme == "process"
    os.kill(int(process), signal.SIGKILL)
    return int(process)


def is_running(pod: Json) -> bool:
    return bool(pod["status"]["phase"] == "Running")
