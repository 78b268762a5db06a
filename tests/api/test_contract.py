import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffugen_api.contract import TERMINATION_MESSAGE_BYTES, FormerRevision, Outcome, Published, ShardCounts, StagePlan


def test_an_outcome_is_read_back_from_a_termination_message() -> None:
    outcome = Outcome(
        reason="Published",
        published=Published(
            uri="s3://b/p", revision="r", samples=9, rejected=1, instances=12, manifest_sha256="0" * 64
        ),
        counts=ShardCounts(total=3, drawn=2, reused=1),
    )

    assert Outcome.loads(outcome.dumps()) == outcome
    assert '"manifestSHA256"' in outcome.dumps()


def test_the_longest_plan_fits_into_a_termination_message() -> None:
    stages = [
        StagePlan(
            name=f"{'x' * 28}{n:02d}",
            total=10**7,
            reused=10**7,
            draw=10**7,
            relabel=10**7,
            shards=10**4,
            gpu=False,
        )
        for n in range(16)
    ]

    assert len(Outcome(reason="Planned", plan=stages).dumps().encode()) <= TERMINATION_MESSAGE_BYTES


def test_the_longest_publication_fits_into_a_termination_message() -> None:
    stages = [f"{'x' * 28}{n:02d}" for n in range(16)]
    former = FormerRevision(folder="0123456789-abcdef01", published_at="2026-11-22T12:00:00Z", samples=10**8)
    published = Published(
        uri="s3://" + "b" * 63 + "/" + "p" * 512 + "/" + "n" * 63 + "/" + "d" * 63 + "/revisions/0123456789-abcdef01",
        revision="0123456789",
        samples=10**8,
        rejected=10**8,
        instances=10**9,
        manifest_sha256="0" * 64,
        accepted_by_stage=dict.fromkeys(stages, 10**7),
        rejected_by_stage=dict.fromkeys(stages, 10**7),
        published_at="2026-11-22T12:00:00Z",
        history=[former] * 10,
    )

    text = Outcome(ok=True, reason="Published", message="x" * 4000, published=published).dumps()

    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    read = Outcome.loads(text)
    assert read is not None
    assert read.published == published
    assert {entry.revision for entry in published.history} == {"0123456789"}


@given(st.text(max_size=6000))
def test_an_overlong_message_is_shortened_and_stays_readable(message: str) -> None:
    text = Outcome(reason="Crashed", message=message).dumps()

    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    read = Outcome.loads(text)
    assert read is not None
    assert read.reason == "Crashed"


A_STAGE = {"name": "base", "total": 8, "reused": 0, "draw": 8, "relabel": 0, "shards": 1, "gpu": True}


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "Killed", "[1]", '{"message": "no reason"}', '{"reason": "cut'),
        pytest.param("[" * 4000, id="deeper than a parser goes"),
        pytest.param('{"reason": "A", "message": "half of a pair: \\ud800"}', id="a lone surrogate"),
        pytest.param('{"reason": "A", "accounts": {"\\udfff": 1}}', id="a lone surrogate in a key that is ignored"),
        pytest.param('{"reason": "A", "counts": {"total": ' + "9" * 5000 + "}}", id="a number without bounds"),
        *(
            pytest.param(json.dumps({"reason": "Planned", "plan": [A_STAGE | wrong]}), id=str(wrong))
            for wrong in ({"reused": 9}, {"total": -1}, {"total": 10**13}, {"shards": 10_001}, {"shards": -1})
        ),
    ],
)
def test_a_foreign_message_is_not_an_outcome(text: str | None) -> None:
    assert Outcome.loads(text) is None


def test_fields_of_a_later_release_are_ignored() -> None:
    assert Outcome.loads('{"reason": "Planned", "novelty": 1}') == Outcome(reason="Planned")


def test_warnings_are_left_out_where_a_message_would_be_too_long() -> None:
    stages = [
        StagePlan(name="s" * 30, total=10**7, reused=10**7, draw=10**7, relabel=10**7, shards=10**4, gpu=True)
        for _ in range(16)
    ]
    outcome = Outcome(reason="Planned", message="m" * 600, plan=stages, warnings=["w" * 300] * 9)

    text = outcome.dumps()

    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    read = Outcome.loads(text)
    assert read is not None
    assert (read.plan, len(read.warnings) < 5) == (stages, True)
    assert Outcome.loads(Outcome(reason="Planned", warnings=["w" * 900]).dumps()) == Outcome(
        reason="Planned", warnings=["w" * 300]
    )
