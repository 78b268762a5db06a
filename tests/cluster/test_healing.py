"""A deadline, and images that vanish from the store: what recovers by itself, and what a user must fix."""

from __future__ import annotations

import threading

from tests.cluster.test_kills import slow_stage
from tests.cluster.world import World


def test_a_job_over_its_deadline_reports_what_to_do_and_continues_after_the_edit(running: World) -> None:
    # The plan's Job has the same deadline: long enough for the plan and the first images, and much too short for all.
    long = {"prompts": {"samplesPerPrompt": 1000}, "stages": [slow_stage()]}
    run = {"samplesPerShard": 4000, "parallelism": 1}
    running.apply(**long, run={**run, "activeDeadlineSeconds": 40})

    message = running.wait_stalled("DeadlineExceeded")

    assert "spec.run.activeDeadlineSeconds: raise or remove it" in message
    drawn = running.drawn_at()
    assert drawn, "it was the stage that took too long"
    running.apply(**long, run=run)
    running.wait("going on", lambda d: d["status"]["attempt"] == 2 and d["status"].get("planned", False))
    assert drawn.items() <= running.drawn_at().items()


def test_images_that_vanish_before_publishing_are_drawn_again_automatically(running: World) -> None:
    running.apply()
    undisturbed = running.wait_ready()["status"]
    drawn = running.drawn_at()
    victims = sorted(drawn)[:3]
    for key in victims:
        running.store.remove_object(running.bucket, key)

    running.apply(quality={"minInstances": 0, "minAreaFraction": 0.003})
    status = running.wait_ready()["status"]

    assert status["attempt"] == 3, "planned once more, and once was enough"
    assert status["replans"] == 0
    after = running.drawn_at()
    assert after.keys() == drawn.keys()
    assert {key for key in drawn if after[key] != drawn[key]} == set(victims)
    assert status["dataset"]["samples"] == undisturbed["dataset"]["samples"] == 8


def test_images_that_vanish_repeatedly_stall_the_run(running: World) -> None:
    stop = threading.Event()

    def thief() -> None:
        while not stop.wait(0.05):
            for key in running.keys("labels/"):
                running.store.remove_object(running.bucket, running.root + key)

    few = {"templates": ["a red {object}"], "samplesPerPrompt": 1}
    running.apply(prompts=few)
    running.wait_ready()
    thread = threading.Thread(target=thief, daemon=True)
    thread.start()
    try:
        running.apply(prompts=few, quality={"minInstances": 0, "minAreaFraction": 0.003})
        message = running.wait_stalled("Incomplete", seconds=600)
    finally:
        stop.set()
        thread.join()

    assert "planned again 3 times" in message
    assert running.get()["status"]["replans"] == 3
