"""The pauses after failures: doubled each time, up to a limit, with jitter."""

from __future__ import annotations

from diffugen_operator.kube.backoff import backoff, jittered


def test_the_pause_doubles_up_to_its_limit() -> None:
    assert [backoff(failures, base=0.5, limit=3) for failures in range(1, 6)] == [0.5, 1, 2, 3, 3]


def test_the_pause_stays_finite_after_any_number_of_failures() -> None:
    assert backoff(10**6, base=0.5, limit=120) == 120


def test_jitter_shortens_a_pause_by_at_most_half() -> None:
    assert [jittered(8, fraction) for fraction in (0, 0.5, 1)] == [4, 6, 8]
