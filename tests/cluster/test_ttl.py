"""Finished Jobs are collected when their time to live is over, during the run that they belong to."""

from __future__ import annotations

from tests.cluster.faults.runs import created_jobs
from tests.cluster.test_kills import slow_stage
from tests.cluster.world import World


def test_finished_work_is_not_repeated_when_its_job_is_collected(running: World) -> None:
    running.operator.end()
    running.operator.environment = {"DIFFUGEN_JOB_TTL": "5"}
    running.operator.start()
    # Four pods one after another: at any speed, the last begins after the plan's Job was deleted.
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
