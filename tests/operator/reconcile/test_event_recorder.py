"""Events: their content, and that a failure to post one has no other effect."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from diffugen_operator.kube.api import ApiError
from diffugen_operator.observed.dataset import Dataset, read_spec
from diffugen_operator.policy.announcements import Announcement, announcements
from diffugen_operator.reconcile.event_recorder import Recorder, event
from tests.operator.lives import NOW, a_life, a_plan, a_raw_dataset

PLANNED = Announcement("Planned", "24 samples.")


def a_dataset(name: str = "shapes") -> Dataset:
    raw = a_raw_dataset(name=name)
    return Dataset.read(raw, read_spec(raw))


def test_an_event_has_its_reason_its_object_and_its_reporter() -> None:
    said = event(a_dataset(), Announcement("Stalled", "why", warning=True), NOW, "pod-1")

    assert (said["reason"], said["message"], said["type"]) == ("Stalled", "why", "Warning")
    assert (said["involvedObject"]["kind"], said["involvedObject"]["uid"]) == ("LabeledDataset", "uid-of-shapes")
    assert (said["reportingComponent"], said["reportingInstance"]) == ("diffugen.dev/operator", "pod-1")
    assert said["eventTime"] == "2026-11-22T12:00:00.000000Z"


def test_the_same_transition_seen_again_has_the_same_name() -> None:
    dataset = a_dataset()
    names = [event(dataset, PLANNED, NOW, instance)["metadata"]["name"] for instance in ("a", "b")]
    other = event(replace(dataset, uid="another"), PLANNED, NOW, "a")["metadata"]["name"]

    assert names[0] == names[1] != other


def test_events_of_one_second_are_in_the_order_of_the_run() -> None:
    """`kubectl describe` sorts by lastTimestamp, and the API server lists by name."""
    life = a_life("base", "more", run={"parallelism": 2})
    said: list[Announcement] = []
    for step in (
        life.turn,
        lambda: life.settle().plan_ends(a_plan("base"), a_plan("more")),
        life.turn,
        lambda: life.job_completes("base").job_completes("more"),
        life.turn,
        life.publish_ends,
        life.turn,
    ):
        before = life.status
        step()
        said += announcements(before, life.status)

    events = [event(a_dataset(), each, NOW, "pod-1") for each in said]

    assert len({each["lastTimestamp"] for each in events}) == 1
    listed = [each["reason"] for each in sorted(events, key=lambda each: str(each["metadata"]["name"]))]
    assert listed == [each.reason for each in sorted(said, key=lambda each: each.order)]
    assert (listed[:2], listed[-1]) == (["RunStarted", "Planned"], "Published")
    assert listed.count("StageStarted") == listed.count("StageSucceeded") == 2


def test_names_and_notes_stay_within_their_bounds() -> None:
    said = event(a_dataset("n" * 253), Announcement("R", "m" * 5000), NOW, "i" * 300)

    assert len(said["metadata"]["name"]) <= 253
    assert (len(said["message"]), len(said["reportingInstance"])) == (1024, 128)


@pytest.mark.parametrize(
    "trouble",
    [ApiError(409, "AlreadyExists", ""), ApiError(403, "Forbidden", ""), aiohttp.ClientError(), TimeoutError()],
)
async def test_an_event_that_cannot_be_posted_is_dropped(trouble: Exception) -> None:
    posted: list[str] = []

    async def post(manifest: dict[str, Any]) -> None:
        posted.append(manifest["reason"])
        if len(posted) == 1:
            raise trouble

    recorder = Recorder(post, instance="test")
    recorder.announce(a_dataset(), PLANNED, NOW)
    recorder.announce(a_dataset(), Announcement("Published", "done"), NOW)
    running = asyncio.create_task(recorder.run())
    await asyncio.wait_for(recorder.flush(), 1)
    running.cancel()

    assert posted == ["Planned", "Published"]


async def test_an_event_waits_as_long_as_the_api_server_asks_for() -> None:
    posted: list[float] = []

    async def post(manifest: dict[str, Any]) -> None:
        posted.append(asyncio.get_running_loop().time())
        if len(posted) == 1:
            raise ApiError(429, "TooManyRequests", "", retry_after=0.2)

    recorder = Recorder(post, instance="test")
    recorder.announce(a_dataset(), PLANNED, NOW)
    running = asyncio.create_task(recorder.run())
    await asyncio.wait_for(recorder.flush(), 5)
    running.cancel()

    first, second = posted
    assert second - first >= 0.2
