"""A newer operator takes over: it continues the runs of the former one, and begins none again."""

from __future__ import annotations

from tests.cluster.operator_process import IMAGE
from tests.cluster.test_kills import slow_stage
from tests.cluster.world import World


def test_a_newer_operator_keeps_the_jobs_of_the_former_one(running: World) -> None:
    running.apply(
        prompts={"templates": ["a red {object}"]}, run={"samplesPerShard": 2, "parallelism": 1}, stages=[slow_stage()]
    )
    running.wait("drawing", lambda _: bool(running.drawn_at()))
    former = {job["metadata"]["uid"]: job["spec"]["template"] for job in running.jobs()}
    pods = {pod["metadata"]["uid"] for pod in running.pods("stage") if pod["status"]["phase"] == "Running"}

    running.operator.end()
    running.operator.environment = {
        "DIFFUGEN_GENERATOR_IMAGE": f"{IMAGE}-next",
        "DIFFUGEN_LIGHT_IMAGE": f"{IMAGE}-next",
        "DIFFUGEN_TERMINATION_GRACE": "17",
        "DIFFUGEN_JOB_TTL": "1800",
    }
    running.operator.start()
    status = running.wait_ready()["status"]

    assert status["attempt"] == 1
    jobs = {job["metadata"]["uid"]: job["spec"]["template"] for job in running.jobs()}
    assert {uid: jobs[uid] for uid in former} == former, "the Jobs that were there are as they were"
    assert pods <= {pod["metadata"]["uid"] for pod in running.pods("stage")}, "their pods were not restarted"
    assert all(job["status"].get("failed", 0) == 0 for job in running.jobs())
    (publish,) = running.jobs("publish")
    spec = publish["spec"]["template"]["spec"]
    assert (spec["containers"][0]["image"], spec["terminationGracePeriodSeconds"]) == (f"{IMAGE}-next", 17)

    # And the next operator does not begin a published dataset again.
    before = running.get()["status"]
    running.operator.end()
    running.operator.environment = {}
    running.operator.start()
    running.annotate("diffugen.dev/retry-requested-at=2026-01-01T00:00:00Z")
    after = running.wait("seen", lambda d: d["status"].get("lastHandledRetryAt", "") != "")
    assert after["status"] == {**before, "lastHandledRetryAt": "2026-01-01T00:00:00Z"}
    assert len(running.jobs()) == 3
