"""Each phase, and the status that kstatus (kubectl wait, Flux, Argo CD's generic rules, Helm) computes for it."""

from __future__ import annotations

import pytest

from diffugen_api.contract import Outcome
from tests.operator.kstatus import kstatus
from tests.operator.lives import Life, a_life, a_plan

PHASES = {
    "just created, not seen by anybody": (a_life, "InProgress"),
    "accepted": (lambda: turned(a_life()), "InProgress"),
    "planning": (lambda: a_life().until_planning(), "InProgress"),
    "planning, the store away": (
        lambda: a_life().until_planning().pod_ends("plan", 75, Outcome(reason="StoreUnreachable")).settle(),
        "InProgress",
    ),
    "drawing": (lambda: a_life().until_drawing(), "InProgress"),
    "drawing, no node free": (lambda: a_life().until_drawing().pod_unschedulable("base", "no").settle(), "InProgress"),
    "publishing": (lambda: a_life().until_publishing(), "InProgress"),
    "published": (lambda: a_life().until_published(), "Current"),
    "published, edited, not seen yet": (lambda: a_life().until_published().edit(seed=7), "InProgress"),
    "published, edited, seen": (lambda: turned(a_life().until_published().edit(seed=7)), "InProgress"),
    "published, edited in how it runs": (
        lambda: turned(a_life().until_published().edit(run={"parallelism": 2})),
        "Current",
    ),
    "suspended before it was published": (
        lambda: a_life().until_drawing().edit(suspend=True).settle(),
        "InProgress",
    ),
    "suspended after it was published": (
        lambda: a_life().until_published().edit(suspend=True).settle(),
        "Current",
    ),
    "stalled": (lambda: a_life(output={}).settle(), "Failed"),
    "stalled, edited, not seen yet": (lambda: a_life(output={}).settle().edit(seed=7), "InProgress"),
    "nothing has moved for long": (lambda: turned(a_life().until_drawing().later(1800)), "Failed"),
    "in Kueue's queue": (lambda: a_life(run={"queueName": "gpus"}).settle(), "InProgress"),
    "deleted, its store being cleaned up": (
        lambda: a_life(deletionPolicy="Delete").until_drawing().delete().settle(),
        "Terminating",
    ),
    "planned again by itself": (
        lambda: (
            a_life()
            .until_publishing()
            .pod_ends("publish", 65, Outcome(reason="Incomplete"))
            .job_fails("publish", "PodFailurePolicy")
            .settle()
        ),
        "InProgress",
    ),
    "given its finalizer, not seen further yet": (lambda: turned(a_life(deletionPolicy="Delete")), "InProgress"),
    "being deleted": (lambda: a_life().until_drawing().delete(), "Terminating"),
}


@pytest.mark.parametrize("phase", PHASES)
def test_kstatus(phase: str) -> None:
    life, expected = PHASES[phase]

    assert kstatus(life().raw) == expected


STATES = {
    "accepted": "Pending",
    "planning": "Running",
    "planning, the store away": "Running",
    "drawing": "Running",
    "drawing, no node free": "Pending",
    "publishing": "Running",
    "published": "Succeeded",
    "published, edited, seen": "Pending",
    "suspended before it was published": "Suspended",
    "suspended after it was published": "Succeeded",
    "stalled": "Failed",
    "nothing has moved for long": "Running",
    "in Kueue's queue": "Pending",
}
"""The state that pipelines wait for. Failed ends a pipeline, so a stall that may end by itself is not Failed."""


@pytest.mark.parametrize("phase", STATES)
def test_the_state_in_one_word(phase: str) -> None:
    summary = PHASES[phase][0]().raw["status"]["summary"]

    assert summary["state"] == STATES[phase]


@pytest.mark.parametrize("phase", PHASES)
def test_the_state_is_of_the_observed_generation(phase: str) -> None:
    raw = PHASES[phase][0]().raw
    observed = raw["status"]["observedGeneration"]

    assert raw["status"].get("summary", {}).get("observedGeneration", -1) == observed


@pytest.mark.parametrize("phase", [phase for phase in PHASES if "not seen" not in phase])
def test_every_condition_is_of_the_observed_generation(phase: str) -> None:
    status = PHASES[phase][0]().status

    assert {condition.observed_generation for condition in status.conditions} == {status.observed_generation}
    assert all(condition.reason for condition in status.conditions)


def test_a_transition_time_changes_only_with_the_conditions_status() -> None:
    life = a_life().until_planning()
    since = {c.type: c.last_transition_time for c in life.status.conditions}

    life.later(60).plan_ends(a_plan("base")).settle()
    assert {c.type: c.last_transition_time for c in life.status.conditions} == since

    life.job_completes("base").settle().publish_ends().settle()
    (ready,) = life.status.conditions
    assert ready.last_transition_time != since["Ready"]


def turned(life: Life) -> Life:
    life.turn()
    return life
