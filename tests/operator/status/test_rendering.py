"""The written status: at most 8 kB, and only the changed fields."""

from __future__ import annotations

from typing import Any

import pytest

from diffugen_api.v1alpha1 import (
    Condition,
    DatasetStatus,
    HistoryEntry,
    LabeledDatasetStatus,
    SampleCounts,
    ShardStatus,
    StageStatus,
    Summary,
)
from diffugen_operator.status.rendering import STATUS_BYTES, dumped, fitted, merge_patch, size_of
from tests.operator.lives import a_life, a_plan

LONGEST = "é" * 2000


def the_largest_status(message: str = LONGEST) -> LabeledDatasetStatus:
    conditions = [
        Condition(
            type=kind,
            status="True",
            reason="R" * 63,
            message=message[:1024],
            last_transition_time="2026-11-22T12:00:00Z",
            observed_generation=10**9,
        )
        for kind in ("Ready", "Reconciling", "Queued", "Suspended")  # Stalled excludes Reconciling
    ]
    stages = [
        StageStatus(
            name=f"{number:02d}" + "s" * 28,
            kind="textualInversion",
            state="Succeeded",
            job="j" * 52,
            samples=SampleCounts(total=10**7, done=10**7, reused=10**7, accepted=10**7, rejected=10**7),
            shards=ShardStatus(total=10**4, succeeded=9 * 10**3, failed=10**3),
            start_time="2026-11-22T12:00:00Z",
            completion_time="2026-11-22T12:00:00Z",
            message=message[:128],
        )
        for number in range(16)
    ]
    history = [
        HistoryEntry(
            revision="r" * 10,
            uri="s3://" + "b" * 63 + "/" + "p" * 670,
            published_at="2026-11-22T12:00:00Z",
            samples=10**8,
        )
        for _ in range(10)
    ]
    dataset = DatasetStatus(
        uri="s3://" + "b" * 63 + "/" + "p" * 670,
        revision="r" * 10,
        samples=10**8,
        instances=10**9,
        manifest_sha256="a" * 64,
        published_at="2026-11-22T12:00:00Z",
    )
    summary = Summary(
        state="Suspended",
        observed_generation=10**9,
        stage="s" * 30,
        progress="1" * 32,
        percent=100,
        images_per_second="1" * 8,
        eta_seconds=10**7,
        reason="R" * 63,
    )
    return LabeledDatasetStatus(
        observed_generation=10**9,
        revision="r" * 10,
        attempt=10**6,
        store="s" * 10,
        planned=True,
        last_handled_retry_at="t" * 64,
        conditions=conditions,
        summary=summary,
        stages=stages,
        dataset=dataset,
        history=history,
        replans=3,
        clean_up_start_time="2026-11-22T12:00:00Z",
    )


@pytest.mark.parametrize("message", [LONGEST, "", "x" * 2000, "\U0001f600" * 2000])
def test_sixteen_stages_of_the_longest_names_and_messages_fit(message: str) -> None:
    assert size_of(fitted(the_largest_status(message))) <= STATUS_BYTES


def test_a_shortened_history_drops_uris_and_keeps_revisions() -> None:
    history = fitted(the_largest_status()).history

    assert [(entry.revision, entry.uri, entry.samples) for entry in history] == [("r" * 10, "", 10**8)] * 10


def test_a_status_that_fits_is_unchanged() -> None:
    life = a_life().until_published()

    assert fitted(life.status) == life.status


def test_messages_are_shortened_before_numbers() -> None:
    stages = fitted(the_largest_status()).stages

    assert [stage.samples.total for stage in stages] == [10**7] * 16


def test_a_status_is_read_back_as_it_was_written() -> None:
    status = a_life("base", "more").until_drawing(a_plan("base"), a_plan("more", reused=4)).status

    assert LabeledDatasetStatus.model_validate(dumped(status)) == status


PATCHES: dict[str, tuple[Any, Any, Any]] = {
    "nothing": ({"a": 1}, {"a": 1}, {}),
    "a value": ({"a": 1, "b": 2}, {"a": 1, "b": 3}, {"b": 3}),
    "a new key": ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    "a key that went": ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
    "a list goes whole": ({"a": [1, 2]}, {"a": [1, 3]}, {"a": [1, 3]}),
}


@pytest.mark.parametrize("case", PATCHES)
def test_a_merge_patch_holds_the_difference(case: str) -> None:
    old, new, patch = PATCHES[case]

    assert merge_patch(old, new) == patch
