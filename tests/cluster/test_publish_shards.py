"""A dataset that is published in shards, one of which is killed, equals one that a single pod publishes."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from typing import Any

from tests.cluster.world import Json, World

OF_THE_NAMESPACE = {"report/summary.js", "croissant.json"}
"""The files that name the namespace, or have the digest of one that does."""


def test_a_killed_shard_is_published_again_and_the_dataset_is_the_same(new_world: Any) -> None:
    whole: World = new_world("publish-whole")
    whole.operator.start()
    whole.apply()
    assert "publishShards" not in whole.wait_ready()["status"]
    assert whole.jobs("publish-shard") == []
    whole.operator.end()

    world: World = new_world("publish-shards")
    world.operator.start()
    world.apply(run={"samplesPerPublishShard": 3})
    world.wait("a shard that is published", lambda _: killed(world))
    status = world.wait_ready()["status"]
    world.operator.end()

    (shards,) = world.jobs("publish-shard")
    assert (shards["spec"]["completions"], shards["status"]["succeeded"]) == (3, 3)
    assert shards["status"]["failed"] == 1
    assert status["publishShards"] == {"total": 3, "succeeded": 3, "failed": 0}
    assert status["attempt"] == 1
    files, expected = published_files(world), published_files(whole)
    assert sorted(files) == sorted(expected)
    assert {path for path, row in files.items() if row != expected[path]} <= OF_THE_NAMESPACE
    assert described_files(world) == described_files(whole)
    assert not [key for key in world.keys("shards/") if "_publish/" in key]


def killed(world: World) -> bool:
    """SIGKILL the process of a pod that publishes a shard, once; return whether one was killed."""
    for pod in world.pods("publish-shard"):
        for container in pod["status"].get("containerStatuses", ()):
            if "running" in container.get("state", {}):
                with suppress(ProcessLookupError):  # it has just ended
                    os.kill(int(container["containerID"].partition("://")[2]), signal.SIGKILL)
                    return True
    return False


def published_files(world: World) -> dict[str, Json]:
    current = world.current()
    assert current is not None
    files: dict[str, Json] = json.loads(world.read(current["dataset"]))["files"]
    return files


def described_files(world: World) -> list[Json]:
    """The files that croissant.json describes, in its order, except those that name the namespace."""
    current = world.current()
    assert current is not None
    described = json.loads(world.read(current["dataset"].replace("dataset.json", "croissant.json")))
    return [file for file in described["distribution"] if file["@id"] not in OF_THE_NAMESPACE]
