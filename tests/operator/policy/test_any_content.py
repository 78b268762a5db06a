"""Statuses, Jobs and pods of any content: no exception, no status that the API server refuses, no kept dataset.

Content is made at random, from seeds: statuses that the CRD's schema allows, values of Jobs and pods, termination
messages.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from tests.operator.lives import Life, a_life, a_plan

CRD = Path(__file__).parents[3] / "crds" / "diffugen.dev_labeleddatasets.yaml"
LIVES_OF_A_SEED = 40
NUMBERS = [0, 1, 2, 3, 24, -1, 2**31, 10**12, 10**13, 2**63 - 1, -(2**63)]
TIMES = ["", "2026-11-22T12:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "yesterday"]
WORDS = [
    "x",
    "base",
    "more",
    "Ready",
    "Stalled",
    "Queued",
    "Suspended",
    "NoProgress",
    "CleanedUp",
    "Published",
    "é" * 30,
]
INDEXES = ["", "0", "0-2", "0-9999,0-9999", "0-99999999999999999999", "5-2", "x,,1"]
MESSAGES = ["[" * 4000, '{"a":' * 2000, "null", "NaN", '{"reason": "A", "message": "\\ud800"}', "hello", ""]

Json = dict[str, Any]


@cache
def schema() -> Json:
    """Return the status's schema in the CRD."""
    (version,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    found: Json = version["schema"]["openAPIV3Schema"]["properties"]["status"]
    return found


def made(random: Random, shape: Json) -> Any:
    """Return a value that a schema allows."""
    if "enum" in shape:
        return random.choice(shape["enum"])
    match shape["type"]:
        case "object":
            required = shape.get("required", ())
            fields = shape["properties"].items()
            return {name: made(random, inner) for name, inner in fields if name in required or random.random() < 0.6}
        case "array":
            items = [made(random, shape["items"]) for _ in range(random.choice([0, 1, 1, 2, 3]))]
            for key in shape.get("x-kubernetes-list-map-keys", ()):
                items = list({item[key]: item for item in items}.values())
            return items
        case "integer":
            least, most = shape.get("minimum", -(2**63)), shape.get("maximum", 2**63 - 1)
            return random.choice([number for number in [*NUMBERS, most] if least <= number <= most])
        case "boolean":
            return random.random() < 0.5
        case _:
            least, most = shape.get("minLength", 0), shape.get("maxLength", 2000)
            return random.choice([text for text in [*TIMES, *WORDS, "m" * most] if least <= len(text) <= most])


def misfit(value: Any, shape: Json, path: str = "status") -> str:
    """Return the first place at which the API server would refuse a value; empty if there is none."""
    match shape["type"]:
        case "object":
            lacks = [f"{path}.{name} is missing" for name in shape.get("required", ()) if name not in value]
            return next(
                filter(None, lacks + [misfit(value[n], shape["properties"][n], f"{path}.{n}") for n in value]), ""
            )
        case "array":
            return next(filter(None, (misfit(item, shape["items"], f"{path}[]") for item in value)), "")
        case "integer":
            fits = shape.get("minimum", -(2**63)) <= value <= shape.get("maximum", 2**63 - 1)
        case "string":
            fits = shape.get("minLength", 0) <= len(value.encode().decode()) <= shape.get("maxLength", 10**6)
            fits = fits and value in shape.get("enum", [value])
        case _:
            fits = isinstance(value, bool)
    return "" if fits else f"{path} is {value!r}"


def a_message(random: Random) -> str:
    plan = {
        "name": random.choice(["base", "more", "x", ""]),
        "total": random.choice([24, *NUMBERS]),
        "reused": random.choice([0, 24, *NUMBERS]),
        "draw": 0,
        "relabel": 0,
        "shards": random.choice([0, 1, 3, 10_000, 10_001, -1]),
        "gpu": random.random() < 0.5,
    }
    published = {
        "uri": random.choice(["s3://pictures/a", "", "x" * 1100, "x" * 1101]),
        "revision": random.choice(["rev", "", "r" * 63, "r" * 64]),
        "samples": random.choice([24, *NUMBERS]),
        "rejected": 0,
        "instances": random.choice([24, *NUMBERS]),
        "manifestSHA256": random.choice(["ab" * 32, ""]),
        "publishedAt": random.choice(TIMES),
        "history": [{"folder": random.choice(["r0", "-x", ""]), "publishedAt": random.choice(TIMES), "samples": 7}],
    }
    message = {
        "reason": random.choice(["Planned", "Incomplete", "R" * 63, "R" * 64, "two words"]),
        "message": "m" * random.choice([0, 5, 3000]),
        "ok": random.random() < 0.5,
        **random.choice([{}, {"plan": [plan]}, {"plan": [plan, plan]}, {"published": published}]),
    }
    text = json.dumps(message)
    return random.choice([text, text, text, text[: random.randrange(len(text))], random.choice(MESSAGES)])


def a_job_status(random: Random) -> Json:
    kinds = random.sample(["Complete", "Failed", "FailureTarget", "Suspended"], random.choice([0, 1, 1, 2]))
    reason = random.choice(["", "two words", "R" * 500, "FailedIndexes", "DeadlineExceeded"])
    return {
        "startTime": random.choice(TIMES),
        "completionTime": random.choice(TIMES),
        "failed": random.choice(NUMBERS),
        "completedIndexes": random.choice(INDEXES),
        "failedIndexes": random.choice(INDEXES),
        "conditions": [{"type": kind, "status": "True", "reason": reason, "message": "m" * 32_000} for kind in kinds],
    }


def a_pod(random: Random, job: str, number: int) -> Json:
    code = random.choice([0, 0, 0, 1, 64, 65, 75, 77, 137])
    ended = {"exitCode": code, "reason": "", "finishedAt": random.choice(TIMES), "message": a_message(random)}
    waits = {
        "reason": random.choice(["ContainerCreating", "ErrImagePull", "CreateContainerError"]),
        "message": "m" * 4000,
    }
    state = random.choice([{"terminated": ended}, {"terminated": ended}, {"waiting": waits}, {"running": {}}, {}])
    labels = {
        "batch.kubernetes.io/job-name": job,
        "batch.kubernetes.io/job-completion-index": random.choice(["0", "99999"]),
    }
    scheduled = {"type": "PodScheduled", "status": random.choice(["True", "False"]), "message": "m" * 9000}
    status = {
        "phase": random.choice(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
        "reason": random.choice(["", "Evicted"]),
        "message": "m" * 4000,
        "startTime": random.choice(TIMES),
        "conditions": [
            {**scheduled, "reason": random.choice(["", "Unschedulable"]), "lastTransitionTime": random.choice(TIMES)}
        ],
        "containerStatuses": [
            {"name": "generator", "image": "i" * 3000, "state": state},
            {"name": "s" * 63, "image": "i", "state": random.choice([{}, {"running": {}}])},
        ],
    }
    return {"metadata": {"name": f"{job}-{number}", "labels": labels}, "spec": {"nodeName": "n"}, "status": status}


LIVES = [
    a_life(deletionPolicy="Delete").until_planning(),
    a_life("base", "more", deletionPolicy="Delete").until_drawing(a_plan("base"), a_plan("more")),
    a_life(deletionPolicy="Delete").until_publishing(),
    a_life(deletionPolicy="Delete").until_published(),
    a_life(run={"queueName": "gpus"}, deletionPolicy="Delete").until_planning(),
]


def disturbed(random: Random) -> Life:
    """Return a life in which a status, the Jobs or their pods have any content."""
    life = copy.deepcopy(random.choice(LIVES))
    what = random.choice(["status", "status", "jobs", "pods"])
    if what == "status":
        kept = life.raw["status"] if random.random() < 0.7 else {}
        found = made(random, schema())
        life.raw["status"] = {**kept, **{name: each for name, each in found.items() if random.random() < 0.5}}
    for number, (name, job) in enumerate(life.jobs.items()):
        if what == "jobs":
            job["status"] |= a_job_status(random)
        if what == "pods":
            life.pods[f"{name}-{number}"] = a_pod(random, name, number)
            job["status"] |= random.choice([{}, {"conditions": [{"type": "Complete", "status": "True"}]}])
    return life


@pytest.mark.parametrize("seed", range(6))
def test_any_content_leads_to_a_status_that_can_be_written_and_keeps_no_deleted_dataset(seed: int) -> None:
    random = Random(seed)
    for _ in range(LIVES_OF_A_SEED):
        life = disturbed(random)
        deleted = random.random() < 0.6
        if deleted:
            life.delete()
        for turn in range(6):
            if turn == 3:
                life.later(life.settings.clean_up_timeout)
            life.turn()
            assert misfit(life.raw["status"], schema()) == ""
            life.stopped()
        if deleted:
            assert life.raw["metadata"]["finalizers"] == []
