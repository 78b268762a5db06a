"""The pool beside the model: bounded, complete when left, and loud about failures."""

from __future__ import annotations

import time
from threading import Event, Thread

import pytest

from diffugen_generator.failures import Interrupted
from diffugen_generator.stages.uploading import Uploads


def test_leaving_waits_for_everything() -> None:
    done: list[int] = []

    with Uploads(waiting=10, threads=1) as uploads:
        for number in range(5):
            uploads.submit(lambda n: (time.sleep(0.01), done.append(n)), number)

    assert done == [0, 1, 2, 3, 4]


def test_an_interruption_leaves_nothing_of_what_was_drawn_behind() -> None:
    done: list[int] = []

    def work_until_interrupted() -> None:
        with Uploads(waiting=10, threads=1) as uploads:
            for number in range(5):
                uploads.submit(lambda n: (time.sleep(0.01), done.append(n)), number)
            raise Interrupted

    with pytest.raises(Interrupted):
        work_until_interrupted()

    assert done == [0, 1, 2, 3, 4]


def test_a_failure_is_raised_by_the_next_submission_and_what_waits_is_dropped() -> None:
    done: list[int] = []
    failed = Event()

    def fail() -> None:
        failed.set()
        raise ConnectionError("the store is gone")

    def work_on() -> None:
        with Uploads(waiting=10, threads=1) as uploads:
            uploads.submit(fail)
            failed.wait()
            for number in range(1000):
                uploads.submit(done.append, number)
                time.sleep(0.001)

    with pytest.raises(ConnectionError):
        work_on()

    assert len(done) < 1000


def test_a_failure_of_the_last_task_is_raised_when_leaving() -> None:
    with pytest.raises(ZeroDivisionError), Uploads(waiting=1) as uploads:
        uploads.submit(lambda: 1 / 0)


def test_no_more_wait_than_may() -> None:
    go = Event()
    with Uploads(waiting=2, threads=2) as uploads:
        uploads.submit(go.wait)
        uploads.submit(go.wait)
        third = Thread(target=uploads.submit, args=(go.wait,))
        third.start()
        third.join(0.05)
        assert third.is_alive()
        go.set()
        third.join(5)
        assert not third.is_alive()
