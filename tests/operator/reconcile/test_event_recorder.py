"""Events: their content, and that a failure to post one has no other effect."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from diffugen_operator.kube.api import ApiError
from diffugen_operator.observed.dataset import Dataset, read_spec
from diffugen_operator.policy.announcements import Announcement
from diffugen_operator.reconcile.event_recorder import Recorder, event
from tests.operator.lives import NOW, a_raw_dataset

PLANNED = Announcement("Planned", "24 samples.")


def a_dataset(name: str = "shapes") -> Dataset:
    raw = a_raw_dataset(name=name)
    return Dataset.read(raw, read_spec(raw))


def test_an_event_has_its_reason_its_object_and_its_reporter() -> None:
    said = event(a_dataset(), Announcement("Stalled", "why", warning=True), NOW, "pod-1")

    assert (said["reason"], said["note"], said["type"]) == ("Stalled", "why", "Warning")
    assert (said["regarding"]["kind"], said["regarding"]["uid"]) == ("LabeledDataset", "uid-of-shapes")
    assert (said["reportingController"], said["reportingInstance"]) == ("diffugen.dev/operator", "pod-1")
    assert said["eventTime"] == "2026-11-22T12:00:00.000000Z"


def test_the_same_transition_seen_again_has_the_same_name() -> None:
    dataset = a_dataset()
    names = [event(dataset, PLANNED, NOW, instance)["metadata"]["name"] for instance in ("a", "b")]
    other = event(replace(dataset, uid="another"), PLANNED, NOW, "a")["metadata"]["name"]

    assert names[0] == names[1] != other


def test_names_and_notes_stay_within_their_bounds() -> None:
    said = event(a_dataset("n" * 253), Announcement("R", "m" * 5000), NOW, "i" * 300)

    assert len(said["metadata"]["name"]) <= 253
    assert (len(said["note"]), len(said["reportingInstance"])) == (1024, 128)


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
