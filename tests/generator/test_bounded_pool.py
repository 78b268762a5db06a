"""The thread pool for background work: bounded, all work is done at exit, and failures are raised."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event, Thread, get_ident

import pytest

from diffugen_generator.bounded_pool import BoundedPool, in_order
from diffugen_generator.failures import Interrupted


@pytest.mark.parametrize("seconds", [0.0, 0.002], ids=["short", "long"])
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_results_keep_the_order_and_few_items_are_taken_ahead(batch: int, seconds: float) -> None:
    taken: list[int] = []
    workers: set[int] = set()

    def double(number: int) -> int:
        if seconds:
            time.sleep(seconds)
        workers.add(get_ident())
        return number * 2

    def items() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    ahead = []
    for done, result in enumerate(in_order(double, items(), workers=4, window=6, batch=batch)):
        assert result == 2 * done
        ahead.append(len(taken) - done)

    assert taken == list(range(40))
    assert max(ahead) <= max(6, batch) + batch
    assert (workers == {get_ident()}) == (not seconds), "short work is done by the caller"


def test_leaving_waits_for_all_work() -> None:
    done: list[int] = []

    with BoundedPool(1, bound=10, complete_on_error=True) as uploads:
        for number in range(5):
            uploads.submit(lambda n: (time.sleep(0.01), done.append(n)), number)

    assert done == [0, 1, 2, 3, 4]


def test_an_interruption_still_completes_submitted_work() -> None:
    done: list[int] = []

    def work_until_interrupted() -> None:
        with BoundedPool(1, bound=10, complete_on_error=True) as uploads:
            for number in range(5):
                uploads.submit(lambda n: (time.sleep(0.01), done.append(n)), number)
            raise Interrupted

    with pytest.raises(Interrupted):
        work_until_interrupted()

    assert done == [0, 1, 2, 3, 4]


def test_the_next_submission_raises_a_failure_and_waiting_work_is_dropped() -> None:
    done: list[int] = []
    failed = Event()

    def fail() -> None:
        failed.set()
        raise ConnectionError("the store is gone")

    def work_on() -> None:
        with BoundedPool(1, bound=10, complete_on_error=True) as uploads:
            uploads.submit(fail)
            failed.wait()
            for number in range(1000):
                uploads.submit(done.append, number)
                time.sleep(0.001)

    with pytest.raises(ConnectionError):
        work_on()

    assert len(done) < 1000


def test_a_failure_of_the_last_task_is_raised_at_exit() -> None:
    with pytest.raises(ZeroDivisionError), BoundedPool(8, bound=1, complete_on_error=True) as uploads:
        uploads.submit(lambda: 1 / 0)


def test_the_number_of_waiting_tasks_is_bounded() -> None:
    go = Event()
    with BoundedPool(2, bound=2, complete_on_error=True) as uploads:
        uploads.submit(go.wait)
        uploads.submit(go.wait)
        third = Thread(target=uploads.submit, args=(go.wait,))
        third.start()
        third.join(0.05)
        assert third.is_alive()
        go.set()
        third.join(5)
        assert not third.is_alive()


def test_another_error_drops_work_that_has_not_begun() -> None:
    done: list[int] = []
    go = Event()

    def fail_outside() -> None:
        with BoundedPool(1, bound=10) as pool:
            for number in range(5):
                pool.submit(lambda n: (go.wait(), done.append(n)), number)
            Thread(target=release_when_dropped, args=(pool,)).start()
            raise ZeroDivisionError

    def release_when_dropped(pool: BoundedPool) -> None:
        for _ in range(10_000):
            if pool.queued == 1:
                break
            time.sleep(0.001)
        go.set()

    with pytest.raises(ZeroDivisionError):
        fail_outside()

    assert done == [0]
