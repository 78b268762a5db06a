"""Deletion of a dataset: with Retain it goes at once; with Delete its store is first cleaned up, within a limit."""

from __future__ import annotations

from typing import Any

import pytest

from diffugen_api.contract import FINALIZER, Outcome
from diffugen_operator.kube.api import ApiError
from diffugen_operator.observed.dataset import InvalidSpec, Wanted
from diffugen_operator.policy.actions import CreateJob, CreateWorkOrder, DeleteJob, SetFinalizer
from diffugen_operator.policy.announcements import announcements
from diffugen_operator.reconcile.reconciler import _Memory
from diffugen_operator.settings import Settings
from tests.operator.clusters import CrashError
from tests.operator.lives import Life, a_life
from tests.operator.worlds import KEY, World

REFUSED = Outcome(reason="StoreCredentialsRefused", message="the store said no")
DELETED = Outcome(ok=True, reason="Deleted", message="90 objects are deleted")


def a_guarded_life(**changes: Any) -> Life:
    return a_life(deletionPolicy="Delete", **changes)


PHASES = {
    "before anything was done": a_life,
    "planning": lambda **c: a_life(**c).until_planning(),
    "drawing": lambda **c: a_life(**c).until_drawing(),
    "publishing": lambda **c: a_life(**c).until_publishing(),
    "published": lambda **c: a_life(**c).until_published(),
    "stalled": lambda **c: a_life(**c).until_planning().job_fails("plan", "BackoffLimitExceeded").settle(),
    "suspended": lambda **c: a_life(**c).until_drawing().edit(suspend=True).settle(),
    "in Kueue's queue": lambda **c: a_life(run={"queueName": "gpus"}, **c).until_planning(),
}


@pytest.mark.parametrize("phase", PHASES)
def test_with_retain_there_is_no_finalizer_and_nothing_to_do_in_any_phase(phase: str) -> None:
    life: Life = PHASES[phase]()
    before = life.status

    decision = life.delete().turn()

    assert "finalizers" not in life.raw["metadata"]
    assert (decision.actions, decision.reconcile_after) == ((), None)
    assert life.status == before


@pytest.mark.parametrize("phase", list(PHASES)[1:])
def test_with_delete_the_store_is_cleaned_up_in_any_phase(phase: str) -> None:
    life = PHASES[phase](deletionPolicy="Delete")
    assert life.raw["metadata"]["finalizers"] == [FINALIZER]

    life.delete().settle()
    assert all(job["metadata"].get("deletionTimestamp") for job in life.jobs.values() if not cleans(job))
    life.stopped().settle()

    assert life.job_names() == ["delete"], "nothing writes behind its back"
    assert life.shown()[0::2] == ("deleting", "Queued" if phase == "in Kueue's queue" else "CleaningUp")
    life.pod_ends("delete", 0, DELETED).job_completes("delete").turn()
    assert life.ready()[1:] == (
        "CleanedUp",
        "The dataset's objects in s3://pictures/vision/shapes are deleted (90 objects are deleted).",
    )
    assert life.turn().actions == [SetFinalizer(present=False)]


def test_a_template_that_the_policy_refuses_does_not_keep_its_objects() -> None:
    template = {"spec": {"hostNetwork": True}}
    life = a_guarded_life(run={"podTemplate": template}).until_published()
    life.settings = Settings(pod_template_policy="restricted")
    assert life.settle().shown()[2] == "InvalidPodTemplate"

    life.delete().settle().stopped().settle()

    assert life.job_names() == ["delete"]
    assert "hostNetwork" not in life.job("delete")["spec"]["template"]["spec"]
    life.pod_ends("delete", 0, DELETED).job_completes("delete").turn()
    assert life.shown()[2] == "CleanedUp"
    assert life.turn().actions == [SetFinalizer(present=False)]


async def test_a_spec_is_read_again_when_its_deletion_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.operator.worlds.SETTINGS", Settings(pod_template_policy="restricted"))
    world = World(run={"podTemplate": {"spec": {"hostNetwork": True}}}, deletionPolicy="Delete")
    world.dataset["metadata"]["finalizers"] = [FINALIZER]
    memory = world.reconciler._memories.setdefault(KEY, _Memory())
    assert isinstance(world.reconciler._wanted(world.dataset, memory), InvalidSpec)

    world.delete()

    assert isinstance(world.reconciler._wanted(world.dataset, memory), Wanted)


def cleans(job: dict[str, Any]) -> bool:
    return bool(job["metadata"]["labels"]["diffugen.dev/step"] == "delete")


def test_the_finalizer_comes_before_anything_else() -> None:
    life = a_guarded_life()

    decision = life.turn()

    assert decision.actions == [SetFinalizer(present=True)]
    assert (life.status.attempt, decision.reconcile_after) == (0, 0)


def test_the_finalizer_follows_the_policy() -> None:
    life = a_life().until_published()

    assert life.edit(deletionPolicy="Delete").turn().actions == [SetFinalizer(present=True)]
    assert life.settle().ready()[0] == "True"
    assert life.edit(deletionPolicy="Retain").turn().actions == [SetFinalizer(present=False)]
    assert life.settle().raw["metadata"]["finalizers"] == []
    assert life.status.attempt == 1


def test_other_finalizers_are_kept() -> None:
    life = a_life().until_published()
    life.raw["metadata"]["finalizers"] = ["argocd.argoproj.io/hook"]

    assert life.turn().actions == []


def test_a_spec_that_cannot_be_read_leaves_the_finalizer_as_it_is() -> None:
    life = a_guarded_life().until_published().edit(classes=[]).settle()

    assert life.raw["metadata"]["finalizers"] == [FINALIZER]


def test_the_clean_up_is_recorded_in_status_before_anything_is_created() -> None:
    life = a_guarded_life().until_published().delete()

    assert life.turn().actions == ()
    assert (life.status.attempt, life.status.clean_up_start_time) == (2, "2026-11-22T12:00:00Z")
    assert {type(action) for action in life.turn().actions} == {DeleteJob, CreateWorkOrder, CreateJob}


def test_the_clean_up_job_is_queued_without_the_runs_deadline_and_without_foreground_deletion() -> None:
    life = a_guarded_life(run={"queueName": "gpus", "activeDeadlineSeconds": 5}).until_planning()

    life.delete().settle().stopped().settle()

    job = life.job("delete")
    assert "activeDeadlineSeconds" not in job["spec"]
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] is False
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["diffugen", "worker", "delete"]
    assert "nvidia.com/gpu" not in str(container["resources"])


def a_failed_clean_up(settings: Settings | None = None) -> Life:
    life = Life(a_guarded_life().raw, settings).until_published().delete().settle()
    life.pod_ends("delete", 77, REFUSED).job_fails("delete", "PodFailurePolicy")
    return life.settle()


def test_a_failed_clean_up_names_the_ways_to_continue_or_end() -> None:
    life = a_failed_clean_up()

    reason, message = life.condition("Stalled") or ("", "")
    assert reason == "StoreCredentialsRefused"
    assert message == (
        "The store is not cleaned up: the store said no. An edit or a retry begins it again; "
        "spec.deletionPolicy: Retain deletes the resource at once, and at 2026-11-22T12:30:00Z "
        "it is deleted anyway."
    )
    assert life.turn().reconcile_after == 1800


@pytest.mark.parametrize(
    "change",
    [lambda life: life.ask_for_retry(), lambda life: life.edit(run={"image": "mine:2"})],
    ids=["retry", "edit"],
)
def test_after_a_retry_or_an_edit_it_is_tried_again_with_the_full_time(change: Any) -> None:
    life = a_failed_clean_up().later(1000)

    change(life)
    life.settle().stopped().settle()

    assert life.status.attempt == 3
    assert life.status.clean_up_start_time == "2026-11-22T12:16:40Z"
    assert life.condition("Stalled") is None
    assert life.job_names() == ["delete"]


@pytest.mark.parametrize(
    ("edit", "attempt"),
    [
        ({"run": {"podTemplate": {"spec": {"nodeSelector": {"zone": "b"}}}}}, 3),
        (
            {"run": {"activeDeadlineSeconds": 60, "parallelism": 4}},
            2,
        ),  # none of them belongs to a clean-up
        ({"output": {}}, 2),
    ],
)
def test_a_clean_up_that_waits_for_a_node_begins_again_after_an_edit_that_its_job_cannot_apply(
    edit: dict[str, Any], attempt: int
) -> None:
    life = a_guarded_life().until_published().delete().settle().pod_unschedulable("delete", "0/3 nodes").settle()

    assert life.edit(**edit).settle().status.attempt == attempt


def test_a_change_to_retain_removes_the_finalizer_at_once() -> None:
    life = a_failed_clean_up()

    assert life.edit(deletionPolicy="Retain").turn().actions == [SetFinalizer(present=False)]


@pytest.mark.parametrize(
    ("life", "last"),
    [
        pytest.param(a_failed_clean_up(), "the store said no", id="it failed"),
        pytest.param(a_guarded_life().until_published().delete().settle(), "", id="it hangs"),
        pytest.param(a_guarded_life().until_drawing().delete().settle(), "", id="the node of a worker is lost"),
        pytest.param(a_guarded_life().until_drawing().delete().edit(output={}).settle(), "spec.output.s3", id="unfit"),
    ],
)
def test_after_the_time_limit_it_is_reported_and_the_resource_is_deleted(life: Life, last: str) -> None:
    life.later(1799).turn()
    assert life.status.summary.reason != "CleanUpAbandoned"
    before = life.later(1).status

    life.turn()

    reason, message = life.condition("Stalled") or ("", "")
    assert reason == "CleanUpAbandoned"
    assert message.startswith(
        "The clean-up of the store was given up, and the resource is deleted. "
        "It did not end within 1800 s. What is left"
    )
    assert last in message
    warnings = [told.reason for told in announcements(before, life.status) if told.warning]
    assert warnings == ["CleanUpAbandoned"]
    assert life.turn().actions == [SetFinalizer(present=False)]


def test_the_time_limit_begins_with_the_clean_up_not_with_the_deletion() -> None:
    life = a_guarded_life().until_published().delete()

    life.later(10_000).settle()

    assert life.job_names() == ["delete"]
    assert life.shown()[2] == "CleaningUp"


def test_a_clean_up_whose_result_is_lost_counts_as_done() -> None:
    life = a_guarded_life().until_published().delete().settle().job_completes("delete")

    life.turn()

    assert life.ready()[1] == "CleanedUp"


def test_in_a_namespace_under_deletion_it_is_reported_and_the_resource_is_deleted() -> None:
    life = a_guarded_life().until_published().delete()
    life.turn()

    life.refuse("NamespaceTerminating", "it is being terminated", for_good=False)

    assert (life.condition("Stalled") or ("", ""))[0] == "CleanUpAbandoned"
    assert "The namespace is being deleted too" in life.ready()[2]
    assert life.turn().actions == [SetFinalizer(present=False)]


def test_a_clean_up_with_a_final_refusal_waits_for_its_fix() -> None:
    life = a_guarded_life(run={"podTemplate": {"spec": {"x": 1}}}).until_published().delete()
    life.turn()

    life.refuse("InvalidPodTemplate", "unknown field")

    assert life.turn().reconcile_after == 1800, "and does not ask again and again"
    assert life.edit(run={}).settle().job_names() == ["delete"]


def test_it_is_reported_in_two_events() -> None:
    life, told = a_guarded_life().until_published().delete(), []
    for _ in range(4):
        before = life.status
        life.turn()
        told += [(one.reason, one.warning) for one in announcements(before, life.status)]
    before = life.pod_ends("delete", 0, DELETED).job_completes("delete").status
    life.turn()
    told += [(one.reason, one.warning) for one in announcements(before, life.status)]

    assert told == [("CleaningUp", False), ("CleanedUp", False)]


# --- with the reconciler, on a simulated cluster ---


async def deleted(crash_at: tuple[int, str] | None) -> World:
    """Take a dataset from nothing to planning, then delete it, with a crash on the way."""
    world = World(deletionPolicy="Delete")
    world.cluster.crash_at = crash_at
    for event in (None, world.delete, world.clean_up_ends):
        if event is not None:
            event()
        for _ in range(5):
            try:
                await world.turn()
            except CrashError:
                world.crashed()
            world.hear_of_deletions()
    return world


WRITES = 12
"""Finalizer; ledger, order, Job; ledger, Job deleted, status, order, Job, status; status, finalizer."""


async def test_the_number_of_writes_of_an_undisturbed_life_with_deletion() -> None:
    world = await deleted(None)

    assert world.cluster.writes == WRITES
    assert ("labeleddatasets", "shapes") not in world.cluster.objects


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("write", range(1, WRITES + 1))
async def test_a_crash_at_any_write_changes_nothing(write: int, when: str) -> None:
    world = await deleted((write, when))

    assert world.cluster.crash_at is None, "it crashed"
    assert ("labeleddatasets", "shapes") not in world.cluster.objects
    steps = [
        obj["metadata"]["labels"]["diffugen.dev/step"]
        for (kind, _), obj in world.cluster.objects.items()
        if kind == "jobs"
    ]
    assert steps == ["delete"]


async def test_a_namespace_under_deletion_is_known_by_the_api_servers_answer() -> None:
    world = World(deletionPolicy="Delete")
    await world.turn(3)
    world.delete()
    await world.turn()
    going = "jobs is forbidden: unable to create new content in namespace vision because it is being terminated"
    world.cluster.refusals["create configmaps"] = ApiError(403, "Forbidden", going)

    for _ in range(4):
        world.hear_of_deletions()
        await world.turn()

    assert ("labeleddatasets", "shapes") not in world.cluster.objects
    assert world.cache.dataset(KEY) is None


HOSTILE = {
    "a message deeper than a parser goes": lambda life: life.pod_ends("plan", 0, "[" * 4000),
    "half of a surrogate pair": lambda life: life.pod_ends("plan", 1, '{"reason": "A", "message": "\\ud800"}'),
    "indexes without end": lambda life: life.job_status("plan", completedIndexes="0-99999999999999999999,x"),
    "no time": lambda life: life.job_status("plan", completionTime="yesterday"),
    "a status that cannot be read": lambda life: life.raw["status"].update(
        conditions="none", cleanUpStartTime="yesterday", lastProgressTime="0001-01-01T00:00:00+14:00", attempt="3"
    ),
    "stages of somebody else": lambda life: life.raw["status"].update(
        planned=True, stages=[{"name": "x", "kind": "y", "samples": {"total": 1, "reused": 9}, "shards": {"total": -3}}]
    ),
    "a pod template without bottom": lambda life: life.edit(run={"podTemplate": deep(2000)}),
}


def deep(levels: int) -> dict[str, Any]:
    template: dict[str, Any] = {}
    for _ in range(levels):
        template = {"a": template}
    return template


@pytest.mark.parametrize("content", HOSTILE)
def test_no_content_of_any_object_blocks_a_deletion(content: str) -> None:
    life = a_guarded_life().until_planning()
    settings = life.settings
    HOSTILE[content](life)

    life.delete().turn()
    for _ in range(4):
        life.stopped().turn()
    life.later(settings.clean_up_timeout).turn()
    life.stopped().turn()

    assert life.raw["metadata"]["finalizers"] == []


def test_a_restored_dataset_has_its_own_time_for_the_clean_up() -> None:
    """Its backup was made while the former resource was being deleted."""
    life = a_life(deletionPolicy="Delete").until_drawing().delete().settle()
    life.raw["metadata"] |= {"uid": "another"}
    life.jobs.clear()
    life.later(life.settings.clean_up_timeout + 1)

    life.turn()

    assert life.shown()[2] == "CleaningUp"
    assert life.settle().job_names() == ["delete"]
