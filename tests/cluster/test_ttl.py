"""Finished Jobs are collected when their time to live is over, in the midst of the run that they are part of."""

from __future__ import annotations

from tests.cluster.faults.runs import created_jobs
from tests.cluster.test_kills import slow_stage
from tests.cluster.world import World


def test_what_is_done_is_not_done_again_when_its_job_is_collected(running: World) -> None:
    running.operator.end()
    running.operator.environment = {"DIFFUGEN_JOB_TTL": "5"}
    running.operator.start()
    # Four pods one after another: however fast they draw, the last begins after the plan's Job has gone.
    one_by_one = {"samplesPerShard": 1, "parallelism": 1}
    running.apply(prompts={"templates": ["a red {object}"]}, run=one_by_one, stages=[slow_stage()])

    running.wait("planned", lambda d: d["status"].get("planned", False))
    dataset = running.wait("collecting the plan's Job", lambda _: not running.jobs("plan"))
    assert [stage["state"] for stage in dataset["status"]["stages"]] == ["Running"], "the run is under way"

    published = running.wait_ready()["status"]
    assert published["attempt"] == 1
    running.wait("collecting all Jobs", lambda _: not running.jobs())
    assert running.get()["status"] == published
    created = created_jobs(running)
    assert sorted(created.values()) == [1, 1, 1], f"one Job for each step, created once: {created}"
