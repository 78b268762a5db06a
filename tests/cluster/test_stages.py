"""The graph of stages on a real cluster: when each stage begins, and which stages a failure stops."""

from __future__ import annotations

from tests.cluster.world import Json, World

DRAWING = {"model": "builtin://shapes", "steps": 4, "guidanceScale": 3}
GRAPH = {
    "prompts": {
        "templates": ["a red {object} on {place}"],
        "variables": {"object": ["ball"], "place": ["snow"]},
        "samplesPerPrompt": 2,
    },
    "stages": [
        {"name": "base", "txt2img": DRAWING},
        {"name": "other", "txt2img": DRAWING},
        {"name": "rain", "img2img": {"from": "base", "variables": {"place": ["sand"]}, "steps": 4, "strength": 0.5}},
    ],
    "run": {"parallelism": 1},
}


def test_a_failed_stage_stops_only_dependent_stages_and_a_retry_does_the_rest(running: World) -> None:
    running.apply(**GRAPH)
    running.wait("planning", lambda _: bool(running.jobs("plan")))
    running.operator.kill()
    running.wait("planned", lambda _: any(job["status"].get("succeeded") for job in running.jobs("plan")))
    (shard,) = [key for key in running.keys("plans/") if "/base/" in key]
    running.store.remove_object(running.bucket, running.root + shard)
    running.operator.start()

    message = running.wait_stalled("ShardsFailed")

    assert "the plan has no shard 0 of stage 'base'" in message
    failed = running.get()["status"]["stages"]
    assert [(stage["name"], stage["state"]) for stage in failed] == [
        ("base", "Failed"),
        ("other", "Succeeded"),
        ("rain", "Pending"),
    ]
    assert failed[2]["message"] == "It depends on stage base, which failed."
    assert job_of(running, "rain") is None
    assert running.jobs("publish") == []

    running.annotate("diffugen.dev/retry-requested-at=2026-01-01T00:00:00Z")
    status = running.wait_ready()["status"]

    base, other, rain = status["stages"]
    assert (base["samples"]["reused"], other["samples"]["reused"], rain["samples"]["done"]) == (0, 2, 2)
    began = job_of(running, "rain")
    assert began is not None
    assert began["metadata"]["creationTimestamp"] >= base["completionTime"], "not before what it comes from was done"


def job_of(world: World, stage: str) -> Json | None:
    jobs = [job for job in world.jobs("stage") if job["metadata"]["labels"]["diffugen.dev/stage"] == stage]
    return jobs[0] if jobs else None
