"""The reconciler around `decide`: one status write, no action twice, and the effects of the API server's answers."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import string
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from diffugen_api.contract import Outcome
from diffugen_operator.kube.api import ApiError
from diffugen_operator.kube.cache import Cache, Resource
from diffugen_operator.kube.work_queue import Key
from diffugen_operator.observed.progress import Shard
from diffugen_operator.reconcile.ownership import ChildStoppingError
from diffugen_operator.reconcile.pod_progress import Scraper
from diffugen_operator.settings import Settings
from tests.operator.lives import a_plan, a_raw_dataset
from tests.operator.worlds import SETTINGS, World


async def drawing(scraper: Scraper | None = None) -> World:
    world = World(scraper=scraper)
    await world.turn(2)
    world.plan_ends()
    await world.turn()
    world.pod_is("stage", "Running", {"running": {}})
    world.asked()
    return world


def edited(world: World, **changes: Any) -> None:
    metadata = {**world.dataset["metadata"], "generation": world.dataset["metadata"]["generation"] + 1}
    dataset = world.dataset | {"metadata": metadata, "spec": {**world.dataset["spec"], **changes}}
    world.see(Resource.DATASETS, world.cluster.put("labeleddatasets", dataset))


async def with_stray(world: World) -> None:
    """Begin another run while the Job of the former one exists."""
    await world.turn(2)
    edited(world, seed=7)
    await world.turn()


async def suspended_while_planning(world: World) -> None:
    await world.turn(2)
    edited(world, suspend=True)


async def resized_while_drawing(world: World) -> None:
    await world.turn(2)
    world.plan_ends()
    await world.turn()
    edited(world, run={"parallelism": 2})


async def test_the_status_is_written_first_then_order_and_job() -> None:
    world = World()

    assert await world.turn() == 0
    assert world.asked() == ["patch status"]
    await world.turn()
    assert world.asked() == ["create configmaps", "create jobs"]
    world.seconds = 11
    await world.turn()
    assert world.asked() == ["patch status"], "that it plans is written where the plan takes a while"


async def test_at_rest_no_request_is_made() -> None:
    world = World()
    await world.turn(3)
    world.asked()

    await world.turn(5)

    assert world.asked() == []


async def test_a_plan_and_the_stage_that_follows_are_one_write() -> None:
    world = World()
    await world.turn(2)
    world.plan_ends()
    world.asked()

    await world.turn()

    assert world.asked() == ["create jobs", "patch status"]
    assert world.dataset["status"]["planned"] is True


async def test_objects_created_before_a_crash_are_used_as_they_are() -> None:
    world = World()
    await world.turn(2)
    world.cache = Cache()  # the new process does not know the Job yet
    world.see(Resource.DATASETS, world.dataset)
    world.restarted()
    world.asked()

    await world.turn()

    assert world.asked()[:4] == [*("create configmaps", "get configmaps"), *("create jobs", "get jobs")]
    assert len([1 for kind, _ in world.cluster.objects if kind == "jobs"]) == 1


@pytest.mark.parametrize(
    "planted",
    [
        {"data": {"order.json": '{"namespace": "vision", "name": "another"}'}},
        {"immutable": False},
        {"binaryData": {"more": "AA=="}},
    ],
    ids=str,
)
async def test_a_planted_order_is_a_name_conflict_and_no_job_reads_it(planted: dict[str, Any]) -> None:
    world = World()
    await world.turn(2)
    order = next(obj for (kind, _), obj in world.cluster.objects.items() if kind == "configmaps")
    job = world.job("plan")
    world.cache.drop(Resource.JOBS, job)
    del world.cluster.objects["jobs", job["metadata"]["name"]]
    order.update(planted)  # with the labels, the owner and the name that ours has

    await world.turn()

    conditions = {c["type"]: c["reason"] for c in world.dataset["status"]["conditions"]}
    assert conditions["Stalled"] == "NameConflict"
    assert not [name for kind, name in world.cluster.objects if kind == "jobs"]


async def test_an_order_that_was_replaced_during_the_run_is_a_name_conflict() -> None:
    world = World()
    await world.turn(2)
    order = next(obj for (kind, _), obj in world.cluster.objects.items() if kind == "configmaps")
    order.update({"data": {"order.json": '{"namespace": "vision", "name": "another"}'}})
    world.plan_ends()
    world.seconds = 31

    await world.turn()

    conditions = {c["type"]: c["reason"] for c in world.dataset["status"]["conditions"]}
    assert conditions["Stalled"] == "NameConflict"
    assert "create jobs" not in world.asked()[-2:]


def without_digest(job: dict[str, Any]) -> None:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["env"] = [each for each in container["env"] if each["name"] != "DIFFUGEN_ORDER_SHA256"]


def of_another_attempt(job: dict[str, Any]) -> None:
    job["metadata"]["labels"]["diffugen.dev/attempt"] = "7"


@pytest.mark.parametrize("plant", [without_digest, of_another_attempt])
async def test_a_planted_job_is_a_name_conflict(plant: Callable[[dict[str, Any]], None]) -> None:
    world = World()
    await world.turn(2)
    job = world.job("plan")
    world.cache.drop(Resource.JOBS, job)
    plant(job)

    await world.turn()

    conditions = {c["type"]: c["reason"] for c in world.dataset["status"]["conditions"]}
    assert conditions["Stalled"] == "NameConflict"


@pytest.mark.parametrize("planted", [True, False])
async def test_a_job_that_was_seen_and_not_created_is_compared(planted: bool) -> None:
    world = World()
    await world.turn(2)
    job = world.job("plan")
    if planted:
        without_digest(job)
    world.cache = Cache()
    world.see(Resource.DATASETS, world.dataset)
    world.see(Resource.JOBS, world.cluster.put("jobs", job))
    world.restarted()

    await world.turn()

    conditions = {c["type"]: c["reason"] for c in world.dataset["status"]["conditions"]}
    assert conditions.get("Stalled") == ("NameConflict" if planted else None)


async def test_pods_of_another_job_with_the_same_name_are_ignored() -> None:
    world = World()
    await world.turn(2)
    message = Outcome(reason="Planned", plan=[a_plan("base")]).dumps()
    world.pod_is("plan", "Succeeded", {"terminated": {"exitCode": 0, "message": message}})
    pod = next(obj for (kind, _), obj in world.cluster.objects.items() if kind == "pods")
    pod["metadata"]["ownerReferences"][0]["uid"] = "of another Job of this name"
    world.see(Resource.PODS, world.cluster.put("pods", pod))
    world.job_is("plan", "Complete")

    await world.turn()

    assert not world.dataset["status"].get("planned")


async def test_a_job_that_the_operator_suspended_is_resumed_by_its_mark() -> None:
    world = World()
    await world.turn(2)

    edited(world, suspend=True)
    await world.turn(2)
    assert world.job("plan")["spec"]["suspend"] is True

    edited(world, suspend=False)
    await world.turn()
    assert world.job("plan")["spec"]["suspend"] is False


async def test_a_job_of_the_wanted_name_that_is_not_ours_stalls() -> None:
    world = World()
    await world.turn(2)
    job = world.job("plan")
    world.cache.drop(Resource.JOBS, job)
    job["metadata"]["ownerReferences"] = []

    await world.turn()

    conditions = {c["type"]: c["reason"] for c in world.dataset["status"]["conditions"]}
    assert conditions["Stalled"] == "NameConflict"


async def test_a_job_of_the_wanted_name_under_deletion_is_waited_for() -> None:
    world = World()
    await world.turn(2)
    job = world.job("plan")
    world.cache.drop(Resource.JOBS, job)
    job["metadata"]["deletionTimestamp"] = "2026-11-22T12:00:00Z"

    with pytest.raises(ChildStoppingError):
        await world.turn()


@pytest.mark.parametrize(
    ("error", "changes", "reason"),
    [
        (ApiError(422, "Invalid", "nodeSelector: Invalid value"), {"podTemplate": {"spec": {}}}, "InvalidPodTemplate"),
        (ApiError(400, "BadRequest", "unknown field"), {"podTemplate": {"spec": {}}}, "InvalidPodTemplate"),
        (ApiError(422, "Invalid", "must be a quantity"), {}, "JobRejected"),
        (ApiError(403, "Forbidden", "a policy denies it"), {}, "JobRejected"),
    ],
)
async def test_a_refused_job_stalls_the_run_with_the_api_servers_message(
    error: ApiError, changes: dict[str, Any], reason: str
) -> None:
    world = World(run=changes)
    await world.turn()
    world.cluster.refusals["create jobs"] = error

    await world.turn()

    (stalled,) = [c for c in world.dataset["status"]["conditions"] if c["type"] == "Stalled"]
    assert (stalled["reason"], stalled["message"]) == (reason, error.message)


@pytest.mark.parametrize("changes", [{}, {"podTemplate": {"spec": {}}}])
async def test_a_refused_order_does_not_blame_the_pod_template(changes: dict[str, Any]) -> None:
    world = World(run=changes)
    await world.turn()
    world.cluster.refusals["create configmaps"] = ApiError(413, "RequestEntityTooLarge", "the object is too large")

    await world.turn()

    (stalled,) = [c for c in world.dataset["status"]["conditions"] if c["type"] == "Stalled"]
    assert (stalled["reason"], stalled["message"]) == ("ConfigMapRejected", "the object is too large")


async def test_over_quota_the_dataset_is_queued_and_tried_again() -> None:
    world = World()
    await world.turn()
    world.cluster.refusals["create jobs"] = ApiError(403, "Forbidden", "jobs is forbidden: exceeded quota: few")

    assert await world.turn() == 30
    assert {c["type"] for c in world.dataset["status"]["conditions"]} == {"Ready", "Reconciling", "Queued"}

    await world.turn()
    assert world.job("plan")


async def test_a_missing_permission_does_not_stall_the_dataset() -> None:
    world = World()
    await world.turn()
    denied = 'jobs.batch is forbidden: User "x" cannot create resource "jobs"'
    world.cluster.refusals["create jobs"] = ApiError(403, "Forbidden", denied)

    await world.turn()

    assert "Stalled" not in {c["type"] for c in world.dataset["status"]["conditions"]}


async def test_a_failing_api_server_fails_the_turn_and_writes_nothing() -> None:
    world = World()
    await world.turn()
    world.asked()
    world.cluster.refusals["create jobs"] = ApiError(500, "InternalError", "boom")

    with pytest.raises(ApiError):
        await world.turn()

    assert world.asked() == ["create configmaps", "create jobs"]


async def test_the_termination_message_of_an_unknown_pod_is_requested() -> None:
    world = World()
    await world.turn(2)
    world.plan_ends(seen=False)
    world.asked()

    await world.turn()

    assert world.asked() == ["list pods", "create jobs", "patch status"]
    assert world.dataset["status"]["attempt"] == 1


async def test_a_known_failed_pod_does_not_hide_the_unknown_successful_one() -> None:
    world = World()
    await world.turn(2)
    world.pod_is("plan", "Failed", {"terminated": {"exitCode": 75}}, number=1)
    world.plan_ends(seen=False)
    world.asked()

    await world.turn()

    assert world.asked() == ["list pods", "create jobs", "patch status"]
    assert (world.dataset["status"]["attempt"], world.dataset["status"]["planned"]) == (1, True)


async def test_the_end_of_a_pod_that_is_heard_just_after_that_of_its_job_costs_no_request() -> None:
    world = World()
    await world.turn(2)
    world.plan_ends(seen=False)
    world.asked()

    turn = asyncio.create_task(world.turn())
    await asyncio.sleep(0)
    for (kind, _), obj in world.cluster.objects.items():
        if kind == "pods":
            world.see(Resource.PODS, obj)
    await turn

    assert world.asked() == ["create jobs", "patch status"]
    assert world.dataset["status"]["planned"]


async def test_pods_are_not_listed_again_after_their_result_is_recorded() -> None:
    world = World()
    await world.turn(2)
    world.plan_ends()
    await world.turn()
    for pod in world.cache.pods_of("vision", world.job("plan")["metadata"]["name"]):
        world.cache.drop(Resource.PODS, pod)
    world.asked()

    await world.turn()

    assert world.asked() == []


async def test_progress_is_written_at_a_limited_rate() -> None:
    world = await drawing()
    writes = []
    for second in range(31):
        world.seconds = 100.0 + second
        world.pods.done = min(8, second // 3)
        await world.turn()
        if "patch status" in world.asked():
            writes.append(second)

    assert all(later - earlier >= 10 for earlier, later in pairwise(writes))
    assert 2 <= len(writes) <= 4


async def test_a_delayed_status_is_written_when_it_is_due() -> None:
    world = await drawing()
    world.seconds = 100.0
    world.pods.done = 1
    await world.turn()
    world.seconds = 106.0
    world.pods.done = 2

    assert await world.turn() == pytest.approx(4.0)


async def test_a_transition_is_written_at_once() -> None:
    world = await drawing()
    world.seconds = 100.0
    world.pods.done = 1
    await world.turn()
    world.asked()
    world.seconds = 100.1
    world.job_is("stage", "Complete")

    await world.turn()

    assert world.asked() == ["get configmaps", "create jobs", "patch status"]


async def test_pods_are_asked_at_their_interval() -> None:
    world = await drawing()
    world.seconds = 100.0
    world.pods.done = 1
    await world.turn()
    assert world.dataset["status"]["summary"]["progress"] == "1/24"

    world.pods.done = 5
    world.seconds = 102.0
    assert await world.turn() == SETTINGS.scrape_interval


class OnePod(Scraper):
    """A pod that reports what the test wants; it never answers if `done` is negative."""

    def __init__(self, done: int) -> None:
        super().__init__(Settings(scrape_interval=0.02, scrape_timeout=60))
        self.done, self.asked = done, 0

    async def ask(self, address: str) -> Shard:
        self.asked += 1
        if self.done < 0:
            await asyncio.Event().wait()
        return Shard(total=8, done=self.done)


async def test_a_pod_that_does_not_answer_is_counted_as_before() -> None:
    world = await drawing(pods := OnePod(done=1))
    world.pod_is("stage", "Failed", {"terminated": {"exitCode": 1}}, number=1)  # a former try of the same shard
    for world.seconds, pods.done in ((100.0, 1), (110.0, -1), (120.0, -1)):
        await world.turn()
        await asyncio.sleep(0.05)

    summary = world.dataset["status"]["summary"]
    assert (summary["progress"], summary["reason"]) == ("1/24", "Drawing")
    await pods.close()


async def test_no_reconcile_waits_for_a_pod() -> None:
    world = await drawing(pods := OnePod(done=-1))
    another = a_raw_dataset()
    another["metadata"] |= {"name": "another", "uid": "uid-of-another"}
    world.see(Resource.DATASETS, world.cluster.put("labeleddatasets", another))

    async with asyncio.timeout(5):
        assert await world.turn() == SETTINGS.scrape_interval
        while not pods.asked:  # noqa: ASYNC110 - it never answers
            await asyncio.sleep(0)
        await world.turn()
        for _ in range(2):
            await world.reconciler.reconcile(Key("vision", "another"))

    assert pods.asked == 1
    assert world.dataset["status"]["summary"]["reason"] == "Drawing"
    assert "create jobs" in world.asked()
    await pods.close()


async def test_pods_of_a_deleted_dataset_are_not_asked_again() -> None:
    world = await drawing(pods := OnePod(done=1))
    await world.turn()
    await asyncio.sleep(0.01)
    world.cache.drop(Resource.DATASETS, world.dataset)

    await world.turn()
    asked = pods.asked
    await asyncio.sleep(0.05)

    assert pods.asked == asked
    await pods.close()


async def test_a_status_that_somebody_else_wrote_fails_the_turn() -> None:
    world = World()
    await world.turn(2)
    world.cluster.put("labeleddatasets", world.dataset)
    world.plan_ends()

    with pytest.raises(ApiError, match="it has changed"):
        await world.turn()


async def test_a_deleted_dataset_is_forgotten() -> None:
    world = World()
    await world.turn()
    world.cache.drop(Resource.DATASETS, world.dataset)

    assert await world.turn() is None


async def test_events_follow_the_write() -> None:
    world = World()
    world.cluster.refusals["patch status"] = ApiError(409, "Conflict", "it has changed")
    with pytest.raises(ApiError):
        await world.turn()
    assert world.recorder.waiting() == 0

    await world.turn()

    assert world.recorder.waiting() == 1


async def test_a_job_in_kueues_queue_is_checked_again_while_kueue_can_be_asked() -> None:
    world = World(run={"queueName": "gpus"})
    pending = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "no quota"}
    workloads: list[dict[str, Any]] = []

    async def version() -> str:
        return "v1beta1"

    async def workloads_of(version: str, namespace: str, job_uid: str) -> list[dict[str, Any]]:
        return workloads

    world.cluster.kueue_version = version  # type: ignore[method-assign]  # a Kueue for this test
    world.cluster.workloads_of = workloads_of  # type: ignore[method-assign]  # likewise
    await world.turn(2)
    looks = [await world.turn() for _ in range(7)]
    assert looks == [1, 2, 4, 8, 16, 30, 30], "Kueue makes its Workload just after the Job was created"

    workloads.append({"status": {"conditions": [pending]}})
    world.seconds += 30
    await world.turn()
    queued = next(c for c in world.dataset["status"]["conditions"] if c["type"] == "Queued")
    assert (queued["reason"], queued["message"].endswith("queue gpus: no quota.")) == ("Pending", True)

    edited = world.dataset | {"spec": {**world.dataset["spec"], "seed": 7}}
    edited["metadata"] |= {"generation": edited["metadata"]["generation"] + 1}
    world.see(Resource.DATASETS, world.cluster.put("labeleddatasets", edited))
    assert await world.turn() == 0, "the former Job gives up its place at once"
    await world.turn()
    assert "delete jobs" in world.asked()


async def test_without_kueue_a_queued_job_is_waited_for_by_events_alone() -> None:
    world = World(run={"queueName": "gpus"})
    await world.turn(3)

    assert await world.turn() is None


async def test_an_action_that_fails_repeatedly_stalls_with_the_api_servers_message() -> None:
    words = 'Internal error occurred: failed calling webhook "mjob.kb.io": connection refused'
    world = World()
    await world.turn()

    def shown() -> dict[str, tuple[str, str]]:
        return {c["type"]: (c["reason"], c["message"]) for c in world.dataset["status"]["conditions"]}

    async def fails() -> None:
        world.seconds += 11
        refused = ApiError(500, "InternalError", f"{words} after {world.seconds} s")  # another message each time
        world.cluster.refusals["create jobs"] = refused
        with pytest.raises(ApiError, match="failed calling webhook"):
            await world.turn()

    for _ in range(2):
        await fails()
        assert shown()["Reconciling"][0] == "Accepted"
    for _ in range(3):
        await fails()
    reason, message = shown()["Reconciling"]
    assert reason == "JobNotCreated"
    assert words in message
    assert message.startswith("Job shapes-plan-")

    world.seconds = SETTINGS.no_progress_after + 60
    await fails()
    assert shown()["Stalled"][0] == "NoProgress"
    assert words in shown()["Stalled"][1]

    await world.turn()
    world.pod_is("plan", "Running", {"running": {}})
    await world.turn()
    assert shown()["Reconciling"][0] == "Planning"
    assert "Stalled" not in shown()
    recording = asyncio.create_task(world.recorder.run())
    await world.recorder.flush()
    recording.cancel()
    assert world.cluster.events.count("JobNotCreated") == 1


@pytest.mark.parametrize(
    ("prepare", "asked", "reason"),
    [
        (lambda world: edited(world, deletionPolicy="Delete"), "patch finalizers", "FinalizerNotChanged"),
        (lambda world: world.turn(), "create configmaps", "ConfigMapNotCreated"),
        (lambda world: world.turn(), "create jobs", "JobNotCreated"),
        (suspended_while_planning, "patch jobs", "JobNotChanged"),
        (resized_while_drawing, "patch jobs", "JobNotChanged"),
        (with_stray, "delete jobs", "JobNotDeleted"),
    ],
    ids=["finalizer", "order", "job", "suspension", "size", "stray"],
)
@pytest.mark.parametrize(
    "error", [ApiError(500, "InternalError", "no webhook answers"), TimeoutError("no webhook answers")]
)
async def test_each_action_that_fails_repeatedly_is_reported(
    prepare: Callable[[World], Any], asked: str, reason: str, error: Exception
) -> None:
    world = World()
    if (prepared := prepare(world)) is not None:
        await prepared

    for _ in range(3):
        world.cluster.refusals[asked] = error
        with pytest.raises(type(error)):
            await world.turn()

    shown = {c["type"]: (c["reason"], c["message"]) for c in world.dataset["status"]["conditions"]}
    assert shown["Reconciling"][0] == reason
    assert "no webhook answers" in shown["Reconciling"][1]


async def test_failures_with_successes_in_between_are_not_reported() -> None:
    world = World()
    await world.turn(2)
    for number in range(4):
        edited(world, suspend=number % 2 == 0)
        world.cluster.refusals["patch jobs"] = ApiError(500, "InternalError", "etcd is away")
        with pytest.raises(ApiError):
            await world.turn()
        assert not any("etcd is away" in c["message"] for c in world.dataset["status"]["conditions"])
        await world.turn(2)


async def test_a_former_order_that_cannot_be_deleted_delays_no_run() -> None:
    world = World()
    await world.turn(2)
    edited(world, seed=7)
    refusal = ApiError(500, "InternalError", "no webhook answers")

    for _ in range(2):
        world.cluster.refusals["delete configmaps"] = refusal
        with pytest.raises(ApiError):
            await world.turn()
    assert world.dataset["status"]["attempt"] == 1
    world.cluster.refusals["delete configmaps"] = refusal
    await world.turn()

    assert world.dataset["status"]["attempt"] == 2


async def test_every_warning_of_a_plan_is_an_event_even_if_the_status_has_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("diffugen_operator.status.rendering.STATUS_BYTES", 100)
    world = World()
    await world.turn(2)
    world.plan_ends(warnings=["no prompt names sky.", "no prompt names sea."])

    await world.turn(2)

    assert "warnings" not in {key for key, value in world.dataset["status"].items() if value}
    recording = asyncio.create_task(world.recorder.run())
    await world.recorder.flush()
    recording.cancel()
    assert world.cluster.events.count("PlanWarning") == 2


async def test_an_occasional_failure_is_not_reported() -> None:
    world = World()
    await world.turn(2)
    for _ in range(4):
        world.cluster.refusals["patch status"] = ApiError(500, "InternalError", "etcd is away")
        world.plan_ends()
        with pytest.raises(ApiError, match="etcd is away"):
            await world.turn()

    await world.turn()

    reasons = {c["reason"] for c in world.dataset["status"]["conditions"]}
    assert reasons == {"Drawing"}


async def test_a_work_order_that_was_deleted_is_created_again_with_the_next_job() -> None:
    world = World()
    await world.turn(2)
    ((kind, name),) = [each for each in world.cluster.objects if each[0] == "configmaps"]
    order = world.cluster.objects.pop((kind, name))
    world.plan_ends()
    world.seconds = 31
    world.asked()

    await world.turn()

    assert world.asked() == ["get configmaps", "create configmaps", "create jobs", "patch status"]
    assert world.cluster.objects[kind, name]["data"] == order["data"]


async def test_a_work_order_that_exists_is_read_before_a_job_and_not_at_each_look() -> None:
    world = World()
    await world.turn(2)
    world.plan_ends()
    world.seconds = 31
    world.asked()

    await world.turn()
    assert world.asked() == ["get configmaps", "create jobs", "patch status"]
    world.job_is("stage", "Complete")
    await world.turn()
    assert world.asked() == ["create jobs", "patch status"]


async def test_a_status_of_a_later_version_is_replaced_with_an_event() -> None:
    world = await drawing()
    status = world.dataset["status"]
    status["stages"][0]["state"] = "Paused"
    world.see(Resource.DATASETS, world.cluster.put("labeleddatasets", world.dataset | {"status": status}))
    running = asyncio.create_task(world.recorder.run())

    await world.turn(3)
    await world.recorder.flush()
    running.cancel()

    assert world.cluster.events.count("StatusUnreadable") == 1
    assert world.dataset["status"]["attempt"] == 2, "its stages are planned again"
    assert all(stage["state"] != "Paused" for stage in world.dataset["status"]["stages"])


async def test_a_value_that_nothing_reads_now_is_replaced_too_where_it_is_unreadable() -> None:
    world = World(suspend=True)
    await world.turn(3)
    status = {**world.dataset["status"], "history": [{"revision": "r1", "publishedAt": "t", "samples": "many"}]}
    world.see(Resource.DATASETS, world.cluster.put("labeleddatasets", world.dataset | {"status": status}))
    running = asyncio.create_task(world.recorder.run())

    await world.turn(2)
    await world.recorder.flush()
    running.cancel()

    assert world.dataset["status"]["history"] == []
    assert world.cluster.events.count("StatusUnreadable") == 1


def a_large_prompts(variables: int) -> dict[str, Any]:
    """Return prompts with half a megabyte of text for each variable; it compresses to three quarters."""
    random = Random(7)
    letters = string.ascii_letters + string.digits + "+-"
    words = {f"v{n}": ["".join(random.choices(letters, k=500)) for _ in range(1000)] for n in range(variables)}
    templates = [f"a {{object}} {{{name}}}" for name in words]
    return {"templates": templates, "variables": {"object": ["ball", "star"], **words}}


async def test_a_large_work_order_is_compressed() -> None:
    world = World(prompts=a_large_prompts(2))

    await world.turn(2)

    order = next(obj for (kind, _), obj in world.cluster.objects.items() if kind == "configmaps")
    assert "data" not in order
    text = gzip.decompress(base64.b64decode(order["binaryData"]["order.json.gz"]))
    (container,) = world.job("plan")["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert env["DIFFUGEN_ORDER"] == "/etc/diffugen/order.json.gz"
    assert env["DIFFUGEN_ORDER_SHA256"] == hashlib.sha256(text).hexdigest()
    assert len(json.loads(text)["spec"]["prompts"]["variables"]["v1"]) == 1000


async def test_a_large_work_order_that_another_zlib_compressed_is_ours() -> None:
    world = World(prompts=a_large_prompts(2))
    await world.turn(2)
    order = next(obj for (kind, _), obj in world.cluster.objects.items() if kind == "configmaps")
    text = gzip.decompress(base64.b64decode(order["binaryData"]["order.json.gz"]))
    order["binaryData"]["order.json.gz"] = base64.b64encode(gzip.compress(text, compresslevel=1)).decode()
    world.plan_ends()
    world.seconds = 31

    await world.turn()

    assert world.job("stage")


async def test_a_work_order_that_no_config_map_holds_names_its_largest_field() -> None:
    world = World(prompts=a_large_prompts(3))

    await world.turn(2)

    stalled = next(c for c in world.dataset["status"]["conditions"] if c["type"] == "Stalled")
    assert stalled["reason"] == "ConfigMapRejected"
    assert "The largest field is spec.prompts.variables (1,5" in stalled["message"]
    assert "create jobs" not in world.asked()
