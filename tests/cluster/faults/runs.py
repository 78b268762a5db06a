"""A run under faults, and what must be true after it has ended, whichever faults occurred."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.cluster.operator_process import OperatorProcess
from tests.cluster.world import Json, World

SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(10**6))
"""The seed of all random choices."""

TINY: Json = {"prompts": {"samplesPerPrompt": 1}, "run": {"samplesPerShard": 2, "parallelism": 2}}
"""Four images in two shards."""

QUICK = {
    "DIFFUGEN_RESYNC_INTERVAL": "5",
    "DIFFUGEN_REQUEST_TIMEOUT": "3",
    "DIFFUGEN_BACKOFF_LIMIT": "2",
}
"""Settings for tests: intervals of minutes are seconds here."""


class MortalOperator(OperatorProcess):
    """An operator that kills itself; tests/cluster/faults/crashing.py describes how."""

    def __init__(self, sound: OperatorProcess, crashes: Path, *, odds: float = 0, seed: object = 0) -> None:
        """Take the place of `sound`; it dies at every boundary once, or at random with these odds."""
        self.__dict__.update(vars(sound))
        self._command = [str(Path(__file__).with_name("crashing.py")), *sound._command[1:]]
        self.crashes = crashes
        chance = {"CRASH_ODDS": str(odds), "CRASH_SEED": str(seed)} if odds else {}
        # No progress numbers: how many status writes they cause depends on the speed of the machine.
        self.environment = {**QUICK, "DIFFUGEN_PROGRESS_INTERVAL": "600", "CRASHES": str(crashes), **chance}

    def deaths(self) -> list[str]:
        """Return the boundaries at which it has died."""
        return self.crashes.read_text().splitlines() if self.crashes.exists() else []


def seen(world: World, what: str, holds: Callable[[Json], bool]) -> Json:
    """Wait until `holds` is true; like `World.wait`, but with longer pauses, as many tests wait side by side."""
    return world.wait(what, holds, seconds=480, look_every_s=0.5)


def is_ready(dataset: Json) -> bool:
    """Whether the dataset is Ready for its current spec."""
    ready = [c for c in dataset.get("status", {}).get("conditions", ()) if c["type"] == "Ready"]
    return [(c["status"], c["observedGeneration"]) for c in ready] == [("True", dataset["metadata"]["generation"])]


def created_jobs(world: World) -> Counter[str]:
    """Return how often each Job of the namespace was created, by the API server's audit log."""
    return Counter(
        event["objectRef"]["name"]
        for event in world.cluster.audit_events()
        if event["verb"] == "create"
        and event.get("responseStatus", {}).get("code") == 201
        and event["objectRef"].get("resource") == "jobs"
        and event["objectRef"].get("namespace") == world.namespace
    )


def assert_ended_right(
    world: World, undisturbed: str, *, attempts: int = 1, steps: Sequence[str] = ("plan", "publish", "stage")
) -> None:
    """One Job for each step and attempt, nothing left over, and the undisturbed run's content to the byte."""
    dataset = world.get()
    status = dataset["status"]
    assert status["dataset"]["manifestSHA256"] == undisturbed
    assert status["attempt"] == attempts
    created = created_jobs(world)
    assert set(created.values()) == {1}, f"created more than once: {created}"
    jobs = world.jobs()
    assert {job["metadata"]["name"] for job in jobs} <= set(created)
    assert sorted(_labels(jobs, "step")) == list(steps), "one Job for each step"
    assert set(_labels(jobs, "attempt")) == {str(attempts)}, "none of a former attempt is left"
    orders = [c for c in world.items("configmaps") if "diffugen.dev/attempt" in (c["metadata"].get("labels") or {})]
    assert _labels(orders, "attempt") == [str(attempts)]
    owners = {owner["uid"] for child in (*jobs, *orders) for owner in child["metadata"]["ownerReferences"]}
    assert owners == {dataset["metadata"]["uid"]}


def _labels(objects: Iterable[Json], name: str) -> list[str]:
    return [obj["metadata"]["labels"][f"diffugen.dev/{name}"] for obj in objects]
