"""At most one leader in every case: tables of clocks and of answers of the API server."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from diffugen_operator.kube.api import ApiError
from diffugen_operator.kube.credentials import ServiceAccount
from diffugen_operator.kube.leader_election import Election, Lease, LeaseLostError
from diffugen_operator.settings import Settings

SETTINGS = Settings(lease_namespace="system", lease_duration=15, lease_renew_deadline=10, lease_retry=2)
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class World:
    """A Lease, one clock for all processes, and a server that can be unreachable."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.lease: Lease | None = None
        self.version = 0
        self.away = False
        self.answer_lost = False
        self.delay = 0.0
        self.within: list[float] = []

    def later(self, seconds: float) -> None:
        self.seconds += seconds

    def process(self, name: str, *, wrong_by: float = 0.0, account: ServiceAccount | None = None) -> Election:
        """Return a process whose wall clock is wrong by so many seconds."""
        return Election(
            leases=self,
            settings=SETTINGS,
            identity=name,
            clock=lambda: self.seconds,
            now=lambda: START + timedelta(seconds=self.seconds + wrong_by),
            owner=lambda: account,
        )

    async def get_lease(self, namespace: str, name: str, *, within: float) -> Lease | None:
        self._ask()
        return copy.deepcopy(self.lease)

    async def create_lease(self, manifest: Lease, *, within: float) -> Lease:
        self._ask()
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists", "it exists")
        return self.put(manifest)

    async def replace_lease(self, manifest: Lease, *, within: float) -> Lease:
        self._ask()
        self.within.append(within)
        if self.lease is None:
            raise ApiError(404, "NotFound", "it is gone")
        if manifest["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "it has changed")
        return self.put(manifest)

    def put(self, manifest: Lease) -> Lease:
        self.version += 1
        self.seconds += self.delay
        self.lease = copy.deepcopy(manifest)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        if self.answer_lost:
            raise TimeoutError
        return copy.deepcopy(self.lease)

    def _ask(self) -> None:
        if self.away:
            raise ConnectionRefusedError

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in which every sleep advances the clock."""
    world, sleep = World(), asyncio.sleep

    async def slept(seconds: float) -> None:
        world.later(seconds)
        await sleep(0)

    monkeypatch.setattr("diffugen_operator.kube.leader_election.asyncio.sleep", slept)
    return world


async def wins_within(world: World, process: Election, seconds: float) -> float | None:
    """Return after how many seconds the process leads, or None if it does not within the limit."""
    began, task = world.seconds, asyncio.ensure_future(process.win())
    for _ in _until(lambda: task.done() or world.seconds - began > seconds):
        await asyncio.sleep(0)
    if task.cancel():
        return None
    return world.seconds - began


async def test_the_first_leads_at_once_and_the_second_waits(world: World) -> None:
    first, second = world.process("first"), world.process("second")

    assert await wins_within(world, first, 0) == 0
    held = asyncio.ensure_future(first.hold())
    assert await wins_within(world, second, 120) is None

    assert (first.leading, first.stands_by) == (True, False)
    assert (second.leading, second.stands_by) == (False, True)
    assert world.holder == "first"
    held.cancel()


async def test_a_lease_that_somebody_else_wrote_is_taken_in_the_end(world: World) -> None:
    largest = 2**31 - 1
    spec = {"holderIdentity": "nobody", "leaseDurationSeconds": largest, "leaseTransitions": largest}
    world.lease = {"metadata": {"name": "l", "namespace": "system", "resourceVersion": "1"}, "spec": spec}

    assert (await wins_within(world, world.process("first"), 3610) or 0) >= 3600
    assert world.lease["spec"]["leaseTransitions"] == 0, "the API server refuses larger numbers"


@pytest.mark.parametrize("wrong_by", [-3600, 0, 3600])
async def test_after_a_crash_another_leads_within_the_lease_duration_with_any_clock(
    world: World, wrong_by: float
) -> None:
    crashed, second = world.process("crashed"), world.process("second", wrong_by=wrong_by)
    await crashed.win()

    after = await wins_within(world, second, 60)

    assert after is not None
    assert 15 <= after <= 15 + 2
    assert not crashed.leading
    assert world.lease is not None
    assert world.lease["spec"]["leaseTransitions"] == 1


async def test_a_released_lease_is_taken_at_the_next_check(world: World) -> None:
    first, second = world.process("first"), world.process("second")
    await first.win()
    assert await wins_within(world, second, 5) is None

    await first.release()

    assert not first.leading
    assert await wins_within(world, second, 2) == 0


async def test_a_leader_that_cannot_renew_stops_before_another_begins(world: World) -> None:
    leader, began = world.process("leader"), world.seconds
    await leader.win()
    world.away = True

    with pytest.raises(LeaseLostError, match="not renewed for 10 s"):
        await leader.hold()

    assert not leader.leading
    assert world.seconds - began <= 10 < SETTINGS.lease_duration


async def test_a_process_that_cannot_read_the_lease_is_not_a_standby(world: World) -> None:
    process = world.process("process")
    world.away = True

    assert await wins_within(world, process, 60) is None
    assert not process.stands_by


async def test_an_outage_shorter_than_the_deadline_changes_nothing(world: World) -> None:
    leader = world.process("leader")
    await leader.win()
    held = asyncio.ensure_future(leader.hold())
    world.away = True
    await passed(world, 7)
    world.away = False
    await passed(world, 60)

    assert leader.leading
    assert not held.done()
    held.cancel()


async def test_a_frozen_leader_may_write_nothing_when_it_wakes(world: World) -> None:
    frozen, second = world.process("frozen"), world.process("second")
    await frozen.win()
    world.later(10)
    assert not frozen.leading, "before it has done anything at all"
    await second.win()

    with pytest.raises(LeaseLostError):
        await frozen.hold()

    await frozen.release()
    assert world.holder == "second"


async def test_a_renewal_that_hangs_leaves_time_for_another(world: World) -> None:
    leader = world.process("leader")
    await leader.win()
    held = asyncio.ensure_future(leader.hold())
    await passed(world, 20)

    assert max(world.within) == 5
    held.cancel()


async def test_a_slow_answer_does_not_lengthen_the_lease(world: World) -> None:
    leader = world.process("leader")
    world.delay = 9
    await leader.win()

    assert leader.left() == pytest.approx(1)


@pytest.mark.parametrize("who", ["its own renewal", "a label"])
async def test_a_changed_lease_that_we_still_hold_is_kept(world: World, who: str) -> None:
    leader = world.process("leader")
    await leader.win()
    assert world.lease is not None
    held = asyncio.ensure_future(leader.hold())
    if who == "a label":
        world.put({**world.lease, "metadata": {**world.lease["metadata"], "labels": {"a": "b"}}})
    else:
        world.answer_lost = True
        await passed(world, 3)
        world.answer_lost = False
    await passed(world, 60)

    assert leader.leading
    held.cancel()


@pytest.mark.parametrize("fate", ["taken", "deleted"])
async def test_a_lease_that_another_holds_ends_the_process_at_once(world: World, fate: str) -> None:
    leader = world.process("leader")
    await leader.win()
    assert world.lease is not None
    if fate == "taken":
        world.put({**world.lease, "spec": {**world.lease["spec"], "holderIdentity": "other"}})
    else:
        world.lease = None

    with pytest.raises(LeaseLostError, match="another process has taken it, or it was deleted"):
        await leader.hold()

    assert not leader.leading


async def test_of_two_that_try_at_the_same_time_one_leads(world: World) -> None:
    both = [world.process("first"), world.process("second")]
    tasks = [asyncio.ensure_future(process.win()) for process in both]
    await passed(world, 8)

    assert sum(process.leading for process in both) == 1
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize(
    "wrong",
    [{"lease_duration": 10}, {"lease_retry": 10}, {"lease_retry": 0}],
)
def test_inconsistent_lease_times_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="lease_retry must be less than lease_renew_deadline"):
        Settings(**wrong)


async def passed(world: World, seconds: float) -> None:
    """Let tasks run until the clock has advanced by this time."""
    end = world.seconds + seconds
    for _ in _until(lambda: world.seconds >= end):
        await asyncio.sleep(0.1)


def _until(seen: Any) -> Iterator[int]:
    for number in range(10_000):
        if seen():
            return
        yield number
    raise AssertionError("time stands still")


def owners(world: World) -> list[str]:
    assert world.lease is not None
    return [each["uid"] for each in world.lease["metadata"].get("ownerReferences", [])]


async def test_the_lease_belongs_to_the_service_account_of_its_holder() -> None:
    world = World()
    former, present = (ServiceAccount(namespace="system", name="operator", uid=uid) for uid in ("one", "two"))
    holder = world.process("a", account=former)
    await holder.win()
    assert owners(world) == ["one"]
    await holder.release()
    assert world.lease is not None
    world.lease["metadata"]["ownerReferences"].append({"kind": "ConfigMap", "name": "other", "uid": "three"})

    await world.process("b", account=present).win()

    assert owners(world) == ["three", "two"], "a reinstalled operator has another service account"


@pytest.mark.parametrize("account", [None, ServiceAccount(namespace="elsewhere", name="operator", uid="one")])
async def test_without_a_service_account_of_its_namespace_the_lease_has_no_owner(
    account: ServiceAccount | None,
) -> None:
    world = World()

    await world.process("a", account=account).win()

    assert owners(world) == []
