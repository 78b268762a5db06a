"""How sentences are joined."""

from __future__ import annotations

import pytest

from diffugen_operator.status.conditions import sentence


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("nothing listens there", "nothing listens there."),
        ("nothing listens there.", "nothing listens there."),
        ("nothing listens there. \n", "nothing listens there."),
        ("it went on..", "it went on."),
        ("is it a generator?", "is it a generator?"),
        ("it was cut…", "it was cut…"),
        ("", ""),
    ],
)
def test_a_sentence_ends_with_one_full_stop(text: str, joined: str) -> None:
    assert sentence(text) == joined
