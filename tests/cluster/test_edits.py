"""Edits of the applied resource: only the affected work is done again, and the old dataset stays until then."""

from __future__ import annotations

import gzip
import json
import threading
import time

from tests.cluster.pods import eventually
from tests.cluster.world import Json, World

TEMPLATES = [
    "a red {object} on snow",
    "a blue {object} on sand",
    "a green {object} on snow",
    "a yellow {object} on sand",
]


def manifest_of(world: World) -> list[Json]:
    pointer = world.current()
    assert pointer is not None
    data = world.read(f"revisions/{pointer['revision']}/manifest.jsonl.gz")
    return [json.loads(line) for line in gzip.decompress(data).splitlines()]


class Reader(threading.Thread):
    """A reader that downloads the dataset all the time: each revision that the pointer names must be complete."""

    def __init__(self, world: World) -> None:
        super().__init__(daemon=True)
        self._world = world
        self._done = threading.Event()
        self.revisions: list[str] = []
        self.faults: list[str] = []

    def run(self) -> None:
        done = False
        while not done:
            done = self._done.wait(0.3)  # one last download after the end
            pointer = self._world.current()
            if pointer is None:
                self.faults.append("there was no pointer")
                continue
            revision = pointer["revision"]
            if self.revisions[-1:] != [revision]:
                self.revisions.append(revision)
            keys = set(self._world.keys(f"revisions/{revision}/"))
            for needed in ("manifest.jsonl.gz", "dataset.json", "yolo/data.yaml", "contact-sheet.png"):
                if f"revisions/{revision}/{needed}" not in keys:
                    self.faults.append(f"{revision} lacks {needed}")

    def finish(self) -> None:
        self._done.set()
        self.join(timeout=30)


def test_an_edited_template_redraws_its_quarter_and_a_threshold_redraws_nothing(running: World) -> None:
    running.apply(prompts={"templates": TEMPLATES})
    first = running.wait_ready()
    assert first["status"]["stages"][0]["samples"] == {
        "total": 16,
        "done": 16,
        "reused": 0,
        "accepted": 16,
        "rejected": 0,
    }
    drawn = running.drawn_at()
    assert len(drawn) == 16
    old = first["status"]["dataset"]
    reader = Reader(running)
    reader.start()

    # One template of four.
    edited = [*TEMPLATES[:3], "one purple {object} on sand"]
    running.apply(prompts={"templates": edited})
    second = running.wait("at work on the edit", lambda d: d["status"].get("revision") != old["revision"])
    assert second["status"]["dataset"] == old, "the old dataset stays published"
    second = running.wait_ready()
    reader.finish()

    counts = second["status"]["stages"][0]["samples"]
    assert (counts["total"], counts["reused"], counts["done"]) == (16, 12, 16)
    assert worker_counts(running, second) == {"drawn": 4, "labelled": 4}
    after = running.drawn_at()
    assert {k: v for k, v in after.items() if k in drawn} == drawn, "no picture was drawn again"
    assert len(after) == 20
    assert {line["prompt"] for line in manifest_of(running)} >= {
        "one purple ball on sand",
        "one purple star on sand",
    }
    assert reader.faults == []
    assert reader.revisions == [old["revision"], second["status"]["dataset"]["revision"]]
    assert f"revisions/{old['revision']}/dataset.json" in running.keys("revisions/")

    # A threshold: labels only, and no pod with a GPU.
    before = manifest_of(running)
    known = {j["metadata"]["name"] for j in running.jobs()}
    running.apply(prompts={"templates": edited}, labeling={"attention": {"threshold": 0.8, "snap": False}})
    third = running.wait_ready()

    assert running.drawn_at() == after, "nothing was drawn"
    new = [j for j in running.jobs() if j["metadata"]["name"] not in known]
    assert len(new) == 3
    assert "nvidia.com/gpu" not in json.dumps([j["spec"]["template"] for j in new])
    assert worker_counts(running, third) == {"drawn": 0, "labelled": 16}
    changed = manifest_of(running)
    assert [line["id"] for line in changed] == [line["id"] for line in before]
    assert [line["instances"] for line in changed] != [line["instances"] for line in before]


def worker_counts(world: World, dataset: Json) -> dict[str, int]:
    """Sum the counts that the workers reported for the dataset's revision."""
    revision = dataset["status"]["revision"]
    reports = [json.loads(world.read(key)) for key in world.keys(f"shards/{revision}/")]
    return {name: sum(report["counts"][name] for report in reports) for name in ("drawn", "labelled")}


def test_a_restored_former_spec_is_published_again_without_drawing(running: World) -> None:
    running.apply()
    first = running.wait_ready()
    drawn = running.drawn_at()
    running.apply(quality={"minInstances": 1})
    second = running.wait_ready()
    assert second["status"]["revision"] != first["status"]["revision"]

    running.apply()
    third = running.wait_ready()

    assert third["status"]["dataset"]["manifestSHA256"] == first["status"]["dataset"]["manifestSHA256"]
    pointer = running.current()
    assert pointer is not None
    assert pointer["revision"] == first["status"]["revision"]
    assert running.drawn_at() == drawn


def test_suspend_stops_the_work_and_resume_continues_it(running: World) -> None:
    one_by_one = {"samplesPerShard": 2, "parallelism": 1}
    running.apply(run=one_by_one)
    running.wait("drawing", lambda d: d["status"].get("summary", {}).get("progress", "").startswith(("2/", "4/")))
    running.apply(run=one_by_one, suspend=True)
    running.wait("suspended", lambda d: running.condition("Suspended", d)["status"] == "True")
    eventually(lambda: not [p for p in running.pods("stage") if p["status"]["phase"] in {"Pending", "Running"}])
    drawn = running.drawn_at()
    time.sleep(3)
    assert running.drawn_at() == drawn
    assert len(drawn) < 8

    running.apply(run=one_by_one, suspend=False)
    running.wait_ready()

    assert {k: v for k, v in running.drawn_at().items() if k in drawn} == drawn
    assert len(running.jobs()) == 3, "the suspended Job itself went on"


def test_an_edit_of_parallelism_reaches_the_running_job(running: World) -> None:
    def drawing_with(pods: int) -> bool:
        return len([p for p in running.pods("stage") if p["status"]["phase"] == "Running"]) == pods

    running.apply(run={"samplesPerShard": 1, "parallelism": 1})
    eventually(lambda: drawing_with(1))
    running.apply(run={"samplesPerShard": 1, "parallelism": 2})
    eventually(lambda: drawing_with(2))

    status = running.wait_ready()["status"]

    (job,) = running.jobs("stage")
    assert job["spec"]["parallelism"] == 2
    assert status["attempt"] == 1
