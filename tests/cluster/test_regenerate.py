"""A new `regenerateToken`: everything is drawn again, though nothing else has changed."""

from __future__ import annotations

from tests.cluster.test_edits import manifest_of, worker_counts
from tests.cluster.world import World

FEW = {"prompts": {"templates": ["a red {object} on snow"]}}


def test_a_new_token_draws_other_images_for_all_samples(running: World) -> None:
    running.apply(**FEW, regenerateToken="once")
    first = running.wait_ready()["status"]
    drawn, before = running.drawn_at(), manifest_of(running)

    running.apply(**FEW, regenerateToken="again")
    dataset = running.wait_ready()
    second = dataset["status"]

    after = running.drawn_at()
    assert {key: after[key] for key in drawn} == drawn
    assert len(after.keys() - drawn.keys()) == len(drawn) == 4
    assert worker_counts(running, dataset) == {"drawn": 4, "labelled": 4}
    assert second["stages"][0]["samples"]["reused"] == 0
    assert second["dataset"]["revision"] != first["dataset"]["revision"]
    assert {line["id"] for line in manifest_of(running)}.isdisjoint(line["id"] for line in before)
    assert [line["prompt"] for line in manifest_of(running)] == [line["prompt"] for line in before]
