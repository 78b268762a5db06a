"""The queue's rules, with a clock that the test sets, and its waiting."""

from __future__ import annotations

import asyncio
import time

import pytest

from diffugen_operator.kube.work_queue import URGENT_TURNS, Key, Schedule, WorkQueue

A, B, C = Key("ns", "a"), Key("ns", "b"), Key("ns", "c")


def a_schedule(jitter: float = 1.0) -> Schedule:
    return Schedule(backoff_base=1, backoff_limit=60, jitter=lambda: jitter)


def test_a_key_is_queued_once_and_the_first_comes_first() -> None:
    schedule = a_schedule()
    for key in (A, B, A, A):
        schedule.add(key, 0)

    assert [schedule.take(1), schedule.take(1), schedule.take(1)] == [A, B, None]


def test_a_key_in_work_is_not_given_out_until_it_is_done() -> None:
    schedule = a_schedule()
    schedule.add(A, 0)
    schedule.take(0)
    schedule.add(A, 1)

    assert schedule.take(1) is None
    schedule.done(A, 2)
    assert schedule.take(2) == A
    schedule.done(A, 3)
    assert schedule.take(3) is None


def test_urgent_keys_come_first_and_a_waiting_key_can_become_urgent() -> None:
    schedule = a_schedule()
    for key in (A, B):
        schedule.add(key, 0)
    schedule.add(C, 1, urgent=True)
    schedule.add(B, 2, urgent=True)
    schedule.add(C, 2)

    assert (schedule.depth(), schedule.oldest_age(3)) == (3, 3)
    assert [schedule.take(3) for _ in range(4)] == [C, B, A, None]


def test_a_key_that_became_urgent_while_in_work_is_urgent_after() -> None:
    schedule = a_schedule()
    schedule.add(A, 0)
    schedule.take(0)
    schedule.add(B, 1)
    schedule.add(A, 1, urgent=True)
    schedule.add(A, 1)
    schedule.done(A, 2)

    assert [schedule.take(2), schedule.take(2)] == [A, B]


def test_urgent_keys_do_not_starve_others() -> None:
    schedule = a_schedule()
    schedule.add(A, 0)
    urgent = [Key("new", str(number)) for number in range(URGENT_TURNS + 1)]
    for key in urgent:
        schedule.add(key, 0, urgent=True)

    assert [schedule.take(0) for _ in range(URGENT_TURNS + 2)] == [*urgent[:-1], A, urgent[-1]]


def test_a_firm_pause_applies_to_urgent_keys_too() -> None:
    schedule = a_schedule()
    schedule.add(A, 0)
    schedule.take(0)
    schedule.failed(A, 0, at_least=5, firm=True)
    schedule.add(A, 1, urgent=True)

    assert schedule.take(4) is None
    assert schedule.take(5) == A


def test_a_key_for_later_comes_when_it_is_due() -> None:
    schedule = a_schedule()
    schedule.add_later(A, 10)

    assert schedule.next_due() == 10
    assert schedule.take(9.9) is None
    assert schedule.take(10) == A


def test_the_earlier_of_two_times_is_used() -> None:
    schedule = a_schedule()
    schedule.add_later(A, 10)
    schedule.add_later(A, 5)
    schedule.add_later(A, 20)

    assert schedule.next_due() == 5
    assert schedule.take(5) == A
    schedule.done(A, 5)
    assert schedule.take(100) is None, "it comes once"


def test_an_event_makes_a_delayed_key_due() -> None:
    schedule = a_schedule()
    schedule.add_later(A, 10)
    schedule.add(A, 1)

    assert schedule.take(1) == A
    schedule.done(A, 1)
    assert schedule.take(100) is None


def test_repeated_failures_lengthen_the_pause_up_to_a_limit() -> None:
    schedule = a_schedule()
    pauses = []
    now = 0.0
    for _ in range(8):
        schedule.add(A, now)
        schedule.take(now)
        pauses.append(schedule.failed(A, now))
        now += pauses[-1]

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_success_ends_the_pauses() -> None:
    schedule = a_schedule()
    for _ in range(3):
        schedule.add(A, 0)
        schedule.take(0)
        schedule.failed(A, 0)
    schedule.add(A, 0)
    schedule.take(0)
    schedule.done(A, 0)

    schedule.add(A, 0)
    schedule.take(0)
    assert schedule.failed(A, 0) == 1


def test_jitter_spreads_pauses_between_half_and_full_length() -> None:
    pauses = []
    for jitter in (0.0, 0.5, 1.0):
        schedule = a_schedule(jitter)
        schedule.add(A, 0)
        schedule.take(0)
        pauses.append(schedule.failed(A, 0))

    assert pauses == [0.5, 0.75, 1.0]


def test_the_api_servers_retry_after_is_used() -> None:
    schedule = a_schedule()
    schedule.add(A, 0)
    schedule.take(0)

    assert schedule.failed(A, 0, at_least=17) == 17


def test_depth_and_ages_are_reported() -> None:
    schedule = a_schedule()
    schedule.add(A, 0)
    schedule.add(B, 2)
    schedule.take(5)

    assert (schedule.depth(), schedule.oldest_age(6), schedule.longest_work(9)) == (1, 4, 4)


def a_queue() -> WorkQueue:
    return WorkQueue(clock=time.monotonic, backoff_base=0.01, backoff_limit=1)


async def test_a_worker_waits_for_added_keys_and_for_keys_that_become_due() -> None:
    queue = a_queue()
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add_after(A, 0.02)
    assert await asyncio.wait_for(waiting, 1) == A

    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add(B)
    assert await asyncio.wait_for(waiting, 1) == B


async def test_many_workers_never_hold_one_key_at_once() -> None:
    queue = a_queue()
    held: set[Key] = set()
    taken = []

    async def work() -> None:
        while (key := await queue.take()) is not None:
            assert key not in held
            held.add(key)
            await asyncio.sleep(0.001)
            held.discard(key)
            taken.append(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(4)]
    for _ in range(20):
        for key in (A, B, C):
            queue.add(key)
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    queue.close()
    await asyncio.gather(*workers)

    assert {A, B, C} == set(taken)


async def test_a_key_wakes_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, tries = a_queue(), 0
    waiting = [asyncio.create_task(queue.take()) for _ in range(3)]
    await asyncio.sleep(0)
    take = queue.schedule.take

    def counted(now: float) -> Key | None:
        nonlocal tries
        tries += 1
        return take(now)

    monkeypatch.setattr(queue.schedule, "take", counted)
    queue.add(A)
    await asyncio.sleep(0.01)
    assert ([task.done() for task in waiting].count(True), tries) == (1, 1)

    queue.add(B)
    queue.add(C)
    await asyncio.sleep(0.01)
    assert ({await task for task in waiting}, tries) == ({A, B, C}, 3)


async def test_keys_that_become_due_together_are_taken_by_as_many_workers() -> None:
    queue = a_queue()
    waiting = [asyncio.create_task(queue.take()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add_after(A, 0.05)
    for key in (B, C):
        queue.add_after(key, 0.01)

    assert {await asyncio.wait_for(task, 1) for task in waiting} == {A, B, C}


async def test_a_worker_that_is_cancelled_leaves_its_key_to_another() -> None:
    queue = a_queue()
    first, second = asyncio.create_task(queue.take()), asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add(A)  # wakes the first
    first.cancel()
    assert await asyncio.wait_for(second, 1) == A

    third, fourth = asyncio.create_task(queue.take()), asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    third.cancel()
    queue.add(B)
    assert await asyncio.wait_for(fourth, 1) == B


async def test_a_closed_queue_gives_out_nothing_and_its_workers_end() -> None:
    queue = a_queue()
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add_after(A, 30)

    queue.close()

    assert await asyncio.wait_for(waiting, 1) is None


def test_an_event_does_not_shorten_a_pause_that_the_api_server_asked_for() -> None:
    schedule = a_schedule()
    schedule.add(A, 0)
    schedule.take(0)
    schedule.failed(A, 0, at_least=5, firm=True)

    schedule.add(A, 1)
    schedule.add_later(A, 2)

    assert schedule.take(4.9) is None
    assert schedule.take(5) == A
    schedule.done(A, 6)
    schedule.add(A, 6)
    assert schedule.take(6) == A, "it was of that failure alone"


def test_an_event_shortens_a_longer_pause_to_what_the_api_server_asked_for() -> None:
    schedule = a_schedule()
    for _ in range(5):
        schedule.add(A, 0)
        schedule.take(0)
        schedule.failed(A, 0)
    schedule.take(16)
    assert schedule.failed(A, 16, at_least=5, firm=True) == 32

    schedule.add(A, 17)

    assert schedule.next_due() == 21
