"""A stage that trains a word, on a cluster: after its pod is killed, the Job goes on from the checkpoint."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tests.cluster.pods import eventually
from tests.cluster.test_kills import is_running, kill_worker
from tests.cluster.world import Json, World
from tests.generator.inversion.trainings import write_images

STEPS = 150


def stages(images: Path) -> list[Json]:
    training = {
        "model": "builtin://shapes",
        "images": str(images),
        "token": "<gem>",
        "initializer": "star",
        "templates": ["a {}"],
        "steps": STEPS,
        "batchSize": 2,
        "patience": 0,
    }
    drawing = {"model": "builtin://shapes", "steps": 4, "guidanceScale": 3, "embeddings": [{"from": "concept"}]}
    return [{"name": "concept", "textualInversion": training}, {"name": "base", "txt2img": drawing}]


def saved_step(world: World) -> int:
    """Return the step that the checkpoint in the store states; 0 if there is none."""
    key = next((key for key in world.keys("embeddings/") if key.endswith("checkpoint.safetensors")), "")
    if not key:
        return 0
    data = world.read(key)
    (length,) = struct.unpack("<Q", data[:8])
    return int(json.loads(data[8 : 8 + length])["__metadata__"]["step"])


def test_a_killed_training_goes_on_from_its_checkpoint(running: World, tmp_path: Path) -> None:
    running.apply(
        classes=[{"name": "star", "synonyms": ["<gem>"]}],
        prompts={"templates": ["a {object}"], "variables": {"object": ["<gem>"]}, "samplesPerPrompt": 1},
        stages=stages(write_images(tmp_path / "images")),
    )
    running.wait("training", lambda _: any(is_running(pod) for pod in running.pods("stage")))
    eventually(lambda: saved_step(running) >= STEPS // 3, within_s=120)

    kill_worker(running)
    saved = saved_step(running)

    concept, base = running.wait_ready()["status"]["stages"]
    assert (concept["state"], concept["samples"]["done"], base["state"]) == ("Succeeded", 1, "Succeeded")
    (key,) = [key for key in running.keys("embeddings/") if key.endswith("card.json")]
    card = json.loads(running.read(key))
    assert STEPS > saved >= STEPS // 3
    assert (card["steps"], card["resumedAt"]) == (STEPS, [saved])
    assert saved_step(running) == 0, "the checkpoint is deleted when the result is stored"
    (job,) = [job for job in running.jobs("stage") if job["metadata"]["labels"]["diffugen.dev/stage"] == "concept"]
    assert (job["status"].get("failed"), job["status"]["succeeded"]) == (1, 1)
