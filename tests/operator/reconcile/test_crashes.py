"""The operator is killed at every write of a whole run, before and after the write took effect, and started again.

In every case: one Job for each step, one attempt, and the same final state.
"""

from __future__ import annotations

import pytest

from tests.operator.clusters import CrashError
from tests.operator.worlds import World

WRITES = 8  # first status; order and Job of the plan; Job and status of stage and publish; last status


async def lived_through(crash_at: tuple[int, str] | None) -> World:
    """Take a dataset from nothing to Ready, with a crash on the way."""
    world = World()
    world.cluster.crash_at = crash_at
    for event in (None, world.plan_ends, lambda: world.job_is("stage", "Complete"), world.publish_ends):
        if event is not None:
            event()
        for _ in range(4):
            try:
                await world.turn()
            except CrashError:
                world.crashed()
    return world


def outcome(world: World) -> tuple[object, ...]:
    jobs = sorted(name for kind, name in world.cluster.objects if kind == "jobs")
    orders = [name for kind, name in world.cluster.objects if kind == "configmaps"]
    status = dict(world.dataset["status"])
    return jobs, orders, status


async def test_the_number_of_writes_of_an_undisturbed_run() -> None:
    assert (await lived_through(None)).cluster.writes == WRITES


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("write", range(1, WRITES + 1))
async def test_a_crash_at_any_write_changes_nothing(write: int, when: str) -> None:
    undisturbed = await lived_through(None)

    disturbed = await lived_through((write, when))

    assert disturbed.cluster.crash_at is None, "it crashed"
    assert outcome(disturbed) == outcome(undisturbed)
    assert disturbed.dataset["status"]["attempt"] == 1
