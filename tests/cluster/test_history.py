"""Former revisions: the set number stays in the store and in the status, and readers always find complete ones."""

from __future__ import annotations

from tests.cluster.test_edits import Reader
from tests.cluster.world import World


def test_the_last_revisions_stay_and_older_ones_are_deleted(running: World) -> None:
    limit = {"revisionHistoryLimit": 1}
    running.apply(**limit)
    first = running.wait_ready()["status"]
    drawn = running.drawn_at()
    evidence = running.keys("evidence/")
    assert first["history"] == []
    reader = Reader(running)
    reader.start()

    running.apply(**limit, quality={"minInstances": 1, "minAreaFraction": 0.003})
    second = running.wait_ready()["status"]
    assert [entry["revision"] for entry in second["history"]] == [first["revision"]]
    running.apply(**limit, quality={"minInstances": 1, "minAreaFraction": 0.004})
    third = running.wait_ready()["status"]
    reader.finish()

    (former,) = third["history"]
    assert former == {
        "revision": second["revision"],
        "uri": second["dataset"]["uri"],
        "publishedAt": second["dataset"]["publishedAt"],
        "samples": second["dataset"]["samples"],
    }
    kept = sorted([second["revision"], third["revision"]])
    for folder in ("revisions", "plans"):
        assert sorted({key.split("/")[1] for key in running.keys(f"{folder}/")}) == kept
    assert running.keys("shards/") == [], "the first revision's, which alone had shards"
    assert running.drawn_at() == drawn
    assert running.keys("evidence/") == evidence
    assert reader.faults == []
    assert reader.revisions == [first["revision"], second["revision"], third["revision"]]
